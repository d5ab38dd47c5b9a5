"""What can be trained, and how a model becomes a defender's move."""
