"""What every training shares: set-up, data, losses and the training loop."""
