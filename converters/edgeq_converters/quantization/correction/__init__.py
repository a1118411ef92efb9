"""Sequential correction: fit a quantized model's weights and biases to the float model, layer by layer."""

from edgeq_converters.quantization.correction.sequential import ROWS, Terms, correct

__all__ = ["ROWS", "Terms", "correct"]
