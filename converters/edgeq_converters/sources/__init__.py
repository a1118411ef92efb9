"""Load Keras, SavedModel, ONNX, PyTorch and .tflite models as a float .tflite."""
