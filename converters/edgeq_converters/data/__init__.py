"""Samples and labels: read from files and matched to a model's inputs."""
