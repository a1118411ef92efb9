"""Staged rollouts: stages, outcomes, abort rules, a crash-safe journal, and the controller."""
