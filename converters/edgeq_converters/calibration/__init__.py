"""Calibration: histograms of tensors and the ranges that are computed from them."""
