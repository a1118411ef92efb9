"""Model sources: Keras, SavedModel, ONNX, PyTorch and .tflite files become a float .tflite."""
