"""Converters: turn a model into a float .tflite, and that into float16, dynamic, int8 and other variants.

Importing the package loads nothing else. TensorFlow, LiteRT and numpy run in a child process
(`edgeq_converters.worker.__main__`), which `edgeq_converters.worker.client` starts and reads.
"""
