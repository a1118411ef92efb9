"""Staged rollouts: `edgeq deploy --stages` and `edgeq rollout`."""
