"""Converters: a model in, a float .tflite in the middle, float16/dynamic/int8 variants out.

Importing the package loads nothing else: TensorFlow, LiteRT and numpy live in the worker's child process
(`edgeq_converters.worker.__main__`), which `edgeq_converters.worker.client` starts and reads.
"""
