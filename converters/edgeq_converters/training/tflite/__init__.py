"""Tuning of a float .tflite: its graph as a differentiable function, trained towards itself in float."""
