"""The demo: the whole path from training to rollback on real data, on this machine alone."""
