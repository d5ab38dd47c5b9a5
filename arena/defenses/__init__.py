"""Defender strategies, one per file."""
