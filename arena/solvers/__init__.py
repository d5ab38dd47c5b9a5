"""Solutions of games given as arrays: numpy, scipy and networkx, nothing of the engine."""
