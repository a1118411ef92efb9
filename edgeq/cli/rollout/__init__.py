"""Staged rollouts on the command line."""
