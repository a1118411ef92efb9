"""Read samples and labels, and match them to a model's inputs."""
