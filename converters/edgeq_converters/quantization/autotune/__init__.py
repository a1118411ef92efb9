"""What a conversion uses where the recipe leaves it open, chosen on samples that were held out."""

from edgeq_converters.quantization.autotune.search import Best, Score, best, wanted

__all__ = ["Best", "Score", "best", "wanted"]
