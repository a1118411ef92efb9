"""One call of the agent: its request, its payload and its answer."""

from __future__ import annotations
