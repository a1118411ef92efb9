"""Show the progress of a worker process: its steps, and how far the long ones are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeq.cli.ui import Ui
    from edgeq.converters_client import Progress


@contextmanager
def worker_progress(ui: Ui) -> Iterator[Progress]:
    """Yield a function (step, done, total) that reports each step once, and shows a bar for long steps."""
    with ExitStack() as bars:
        current, shown = "", 0
        advance: Callable[[int], None] | None = None

        def on_progress(step: str, done: int, total: int) -> None:
            nonlocal current, shown, advance
            if step != current:
                bars.close()
                current, shown = step, 0
                advance = bars.enter_context(ui.progress(step, total)) if total > 1 else None
                if total == 1:
                    ui.say(step)
            elif advance is not None:
                advance(done - shown)
                shown = done

        yield on_progress
