"""Choose what a recipe leaves to `auto`, by the SQNR on held-out samples."""

from edgeq_converters.quantization.autotune.search import FEWEST, Best, Score, choose, division, is_needed

__all__ = ["FEWEST", "Best", "Score", "choose", "division", "is_needed"]
