"""Callbacks that report the progress of a long job."""

from __future__ import annotations

from collections.abc import Callable

Advance = Callable[[int], None]
"""Called with how much more of the current step is done."""

Step = Callable[[str, int], Advance]
"""Called with (name, total) when a step starts; returns the step's `Advance`."""

Progress = Callable[[str, int, int], None]
"""Called with (step, done, total), as the worker's parent sees it."""


def ignore(amount: int) -> None:
    """Report nothing: the `Advance` of work inside a step that reports for itself."""
    del amount
