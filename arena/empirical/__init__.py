"""Games made of moves that were played: their payoffs, values, and responses to them."""
