"""Cross-layer equalization: rescale the channels of a float model so that its tensors quantize better."""

from edgeq_converters.quantization.equalization.apply import Equalized, equalize

__all__ = ["Equalized", "equalize"]
