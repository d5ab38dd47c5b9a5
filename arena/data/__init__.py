"""Labelled data, a source a file."""
