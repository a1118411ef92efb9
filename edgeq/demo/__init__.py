"""The demo: one walk over the whole path on real data, with nothing but this machine."""
