"""Calibrate: count tensor values over a representative dataset and compute ranges from them."""
