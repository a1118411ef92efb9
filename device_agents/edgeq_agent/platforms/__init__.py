"""Platforms: what kind of board this is and what can be read on it."""

from __future__ import annotations
