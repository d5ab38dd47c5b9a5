"""Architectures: everything about a model but its parameters."""
