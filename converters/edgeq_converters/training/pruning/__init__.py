"""Pruning of Keras 3 models: single weights by magnitude, or whole channels removed from the graph."""
