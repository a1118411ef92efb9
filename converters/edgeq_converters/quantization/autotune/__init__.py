"""Choose what a recipe leaves to `auto`, by the SQNR on held-out samples."""

from edgeq_converters.quantization.autotune.search import Best, Score, choose, is_needed

__all__ = ["Best", "Score", "choose", "is_needed"]
