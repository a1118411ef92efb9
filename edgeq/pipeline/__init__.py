"""The pipeline: steps in order; the demo walks all of them."""
