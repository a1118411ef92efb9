"""Mixed-precision search: choose the operations that stay float, by a blueprint and by measurements."""
