"""Benchmarks on a device: a session with the agent and the statistics of what it measured."""
