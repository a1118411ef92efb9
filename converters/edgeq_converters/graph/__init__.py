"""The .tflite graph: parsed, checked, edited and run."""
