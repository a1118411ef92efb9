"""Rewrites of a float graph into operations that integer kernels have; its function stays the same."""
