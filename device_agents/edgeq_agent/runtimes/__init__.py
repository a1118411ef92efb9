"""Runtimes: what runs inference on this device, how it is installed and how it is checked."""

from __future__ import annotations
