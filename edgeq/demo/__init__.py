"""The demo: the whole workflow from training to rollback, on real data and on this machine alone."""
