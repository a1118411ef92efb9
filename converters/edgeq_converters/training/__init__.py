"""Training of Keras 3 models: re-tuning after pruning, and training with fake quantization."""
