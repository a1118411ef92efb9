"""Adapters to the quantizer libraries."""
