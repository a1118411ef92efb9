"""Equalization across layers: the float model rewritten so that its tensors quantize better."""

from edgeq_converters.quantization.equalization.apply import Equalized, equalize

__all__ = ["Equalized", "equalize"]
