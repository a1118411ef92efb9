"""Conversion as edgeq's users call it: the converters with edgeq's errors."""
