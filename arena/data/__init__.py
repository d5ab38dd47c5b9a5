"""Labelled data, one source per file."""
