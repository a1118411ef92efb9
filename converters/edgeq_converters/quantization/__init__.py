"""Quantize a float .tflite: choose ranges, correct the result, and drive the quantizer libraries."""
