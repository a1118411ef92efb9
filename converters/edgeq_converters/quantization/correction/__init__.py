"""Sequential correction of a quantized model against the float model that it came from."""

from edgeq_converters.quantization.correction.sequential import ROWS, Terms, correct

__all__ = ["ROWS", "Terms", "correct"]
