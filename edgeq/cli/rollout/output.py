"""Show a rollout: progress on stderr, then lines, one JSON document and the exit status."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgeq.cli.device_results import emit
from edgeq.cli.ui import App

if TYPE_CHECKING:
    from edgeq.fleet.rollout.events import Event
    from edgeq.fleet.rollout.state import Rollout

SCHEMA = "edgeq.rollout/1"


class ProgressPrinter:
    """Prints the events of a controller; see `Observer`."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.rollout: Rollout | None = None

    def started(self, rollout: Rollout) -> None:
        """Print the stage that begins."""
        from edgeq.fleet.rollout.state import RolloutState

        self.rollout = rollout
        if rollout.state is RolloutState.RUNNING:
            self._app.ui.say(_begins(rollout, rollout.stage))

    def event(self, rollout: Rollout, event: Event) -> None:
        """Print an event; what concerns one device only with `-v`."""
        from edgeq.fleet.rollout import events, view

        ui = self._app.ui
        match event:
            case events.Advanced():
                ui.say(_begins(rollout, event.stage))
            case events.Soaking():
                ui.say(f"{view.stage_line(rollout, event.stage)}; soaks for {rollout.spec.soak_text}")
            case events.Paused() | events.Aborted() | events.RollingBack():
                ui.say(f"{rollout.spec.rollout}: {event.kind}, {event.reason}")
            case events.Ended():
                ui.detail(f"{event.device}: {event.outcome.value} {event.reason}")
            case events.Deployed():
                ui.detail(f"{event.device}: {event.kind}")
            case events.Restored():
                ui.detail(f"{event.device}: {event.result}")


def _begins(rollout: Rollout, stage: int) -> str:
    from edgeq.fleet.rollout import view

    return view.stage_line(rollout, stage) + ("; begins" if rollout.spec.stages[stage].devices else "")


@contextmanager
def progress(app: App) -> Iterator[ProgressPrinter]:
    """Yield an observer that prints; after Ctrl-C, name the command that continues an unfinished rollout."""
    from edgeq.fleet.rollout.state import RolloutState

    printer = ProgressPrinter(app)
    try:
        yield printer
    except KeyboardInterrupt:
        rollout = printer.rollout
        if rollout is not None and rollout.state is not RolloutState.DONE:
            app.ui.next("rollout", "resume", rollout.spec.rollout)
        raise


def finish(app: App, rollout: Rollout, *, rolled_back: bool = False) -> None:
    """Print the state of a rollout, and end with its error if it has one.

    Args:
        rolled_back: the command rolled it back: only a device that could not be restored is a failure.
    """
    from edgeq.fleet.rollout import view

    for line in view.lines(rollout):
        app.ui.line(line)
    error = (None if rolled_back else view.error_of(rollout)) or view.not_restored(rollout)
    emit(app, SCHEMA, view.to_dict(rollout), error)
    app.ui.next("rollout", "show", rollout.spec.rollout)
