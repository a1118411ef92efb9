"""Sensitivity analysis: how much noise at the logits the quantization of each operation causes."""
