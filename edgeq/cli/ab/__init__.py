"""`edgeq ab`: start, show, stop and decide experiments."""
