"""Evaluation: a model's outputs on data, and how far they are from a reference."""
