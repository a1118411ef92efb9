"""Parse, validate, edit and run .tflite models."""
