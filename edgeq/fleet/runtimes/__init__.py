"""TFLite runtimes for devices: which one fits, and how it gets there."""
