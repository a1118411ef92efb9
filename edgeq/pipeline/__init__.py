"""`edgeq run`: from a blueprint to a model that meets it."""

from __future__ import annotations

from edgeq.pipeline.events import Event
from edgeq.pipeline.result import RunResult
from edgeq.pipeline.runner import TimedTarget, run

__all__ = ["Event", "RunResult", "TimedTarget", "run"]
