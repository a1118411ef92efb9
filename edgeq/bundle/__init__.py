"""The deployable archive: manifest, golden inputs, drift reference."""
