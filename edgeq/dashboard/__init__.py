"""The dashboard: not there yet; the report carries the plots."""
