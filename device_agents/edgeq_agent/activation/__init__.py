"""Activation: the state machine of a release on the device, its health check, soak and recovery."""

from __future__ import annotations
