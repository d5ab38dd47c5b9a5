"""Arena: adversarial machine learning as a game."""
