"""Staged rollouts: stages, outcomes, abort rules, a journal that survives the controller, and its runner."""
