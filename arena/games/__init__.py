"""Rules of games."""
