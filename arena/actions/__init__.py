"""What players may do: one action space per file."""
