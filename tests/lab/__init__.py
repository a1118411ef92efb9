"""The test lab: devices that are made here, of Debian packages, and behave like those in the field."""
