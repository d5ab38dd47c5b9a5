"""What players may do: a space a file."""
