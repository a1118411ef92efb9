"""Mixed precision search: which operations stay float, decided by a blueprint and by what was measured."""
