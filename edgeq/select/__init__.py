"""Selection: which of the evaluated variants a blueprint allows, and which is best."""
