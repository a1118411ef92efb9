"""The agent's verbs: each parses its request, takes the lock and calls the domain."""

from __future__ import annotations
