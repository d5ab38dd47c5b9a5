"""What is put before a model: maps of inputs, a file each."""
