"""Version of edgeq: the SDK, the converters and the agent share it."""

from __future__ import annotations

VERSION = "0.1.0"
