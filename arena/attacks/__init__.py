"""Attackers' strategies, one a file."""
