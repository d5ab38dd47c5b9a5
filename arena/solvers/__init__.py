"""Solvers of games given as arrays, with numpy, scipy and networkx and nothing of the engine."""
