"""From a float .tflite and ranges to a quantized .tflite."""
