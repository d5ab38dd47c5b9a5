"""Defenders' strategies, one a file."""
