"""The version of edgeq: one number for the SDK, the converters and the agent that it ships."""

from __future__ import annotations

VERSION = "0.1.0"
