"""Sensitivity: what quantizing each operation of a model costs at its logits."""
