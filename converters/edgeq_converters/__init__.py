"""Converters: a model in, a float .tflite in the middle, float16/dynamic/int8 variants out."""
