"""The jobs of the model's process."""

from __future__ import annotations
