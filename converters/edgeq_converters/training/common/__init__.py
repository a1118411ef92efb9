"""Parts that pruning and QAT share: setup, data, losses and the training loop."""
