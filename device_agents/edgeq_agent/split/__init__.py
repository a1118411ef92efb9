"""The A/B split of a model's calls between two releases."""

from __future__ import annotations
