"""How models are trained, and how a trained model becomes a defender's move."""
