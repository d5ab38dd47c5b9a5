"""Proofs that no legal move changes a network's answer, one method per file."""
