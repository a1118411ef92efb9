"""Telemetry windows: their format, how they are built and merged, and the outbox that stores them."""

from __future__ import annotations
