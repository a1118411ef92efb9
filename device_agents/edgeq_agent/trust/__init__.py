"""Signatures and the keys that this device trusts."""

from __future__ import annotations
