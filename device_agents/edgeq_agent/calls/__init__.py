"""One call of the agent: its request, its payload and its response."""

from __future__ import annotations
