"""The quantizer libraries, one adapter for each."""
