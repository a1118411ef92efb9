"""The worker process, its jobs, and the client that starts it."""
