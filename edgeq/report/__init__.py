"""Reports: one self-contained HTML page from what was measured."""
