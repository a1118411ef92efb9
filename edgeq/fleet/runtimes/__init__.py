"""What inference runs on there: which runtime fits a device, and how it gets it."""
