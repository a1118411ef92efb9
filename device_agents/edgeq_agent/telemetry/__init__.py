"""Telemetry windows: their schema, how they are merged, and the outbox that keeps them."""

from __future__ import annotations
