"""Transformations of inputs, to put before a model; one per file."""
