"""The record of an experiment: events in the store, and what they add up to."""

from __future__ import annotations

import fcntl
import os
import pwd
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from edgeq.errors import ExperimentError
from edgeq.experiment.config import Terms
from edgeq.files import write_atomic
from edgeq.store import ExperimentRecord, Store

FOLDER = Path(".edgeq", "experiments")
BUNDLE = "bundle.eqb"


class State(StrEnum):
    """How an experiment stands."""

    RUNNING = "running"
    STOPPED = "stopped"
    PROMOTED = "promoted"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """An experiment as its events have it.

    Attributes:
        closed: the devices on which nothing of it is left; once it is over, all should be.
        ending: the event that ended it: who, when, why, and on what data.
    """

    terms: Terms
    state: State
    started_ns: int
    started_by: str
    closed: tuple[str, ...] = ()
    ending: ExperimentRecord | None = None

    @property
    def open(self) -> tuple[str, ...]:
        """The devices on which something of it may be left."""
        return tuple(name for name in self.terms.devices if name not in self.closed)

    @property
    def finished(self) -> bool:
        """Whether it is over and gone from every device."""
        return self.state is not State.RUNNING and not self.open

    def to_dict(self) -> dict[str, Any]:
        """The experiment as in `--json`."""
        ending = self.ending
        return {
            **self.terms.to_dict(),
            "state": self.state.value,
            "started_ns": self.started_ns,
            "started_by": self.started_by,
            "open": list(self.open) if self.state is not State.RUNNING else list(self.terms.devices),
            "ending": None
            if ending is None
            else {"event": ending.event, "at_ns": ending.at_ns, "by": ending.actor, **ending.body},
        }


def fold(events: Sequence[ExperimentRecord]) -> Experiment:
    """Return the experiment that events add up to; the first one has its terms.

    Raises:
        ExperimentError: EQ838, they are no events of an experiment: damaged, or of a newer edgeq.
    """
    try:
        return _folded(events)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ExperimentError(
            events[0].experiment,
            f"its record in the store cannot be read ({type(error).__name__}: {error})",
            hint="was it written by a newer edgeq? else take .edgeq/store.db from a backup",
            code="EQ838",
        ) from error


def _folded(events: Sequence[ExperimentRecord]) -> Experiment:
    first = events[0]
    if first.event != "started":
        raise ValueError(f"it begins with {first.event!r}")
    found = Experiment(
        terms=Terms.from_dict(first.body["terms"]),
        state=State.RUNNING,
        started_ns=first.at_ns,
        started_by=first.actor,
    )
    for event in events[1:]:
        if not isinstance(event.body, Mapping):
            raise ValueError(f"{event.event}: expected an object")
        if event.event == "closed":
            names = tuple(name for name in event.body["devices"] if name not in found.closed)
            found = replace(found, closed=found.closed + names)
        elif found.ending is None:
            found = replace(found, state=State(event.event), ending=event)
    return found


def read_all(store: Store) -> list[Experiment]:
    """Return all experiments, in the order in which they began."""
    events: dict[str, list[ExperimentRecord]] = {}
    for event in store.experiments():
        events.setdefault(event.experiment, []).append(event)
    return [fold(each) for each in events.values()]


def find(store: Store, name: str | None) -> Experiment:
    """Return an experiment by its name; without one, the only one that is not finished.

    Raises:
        ExperimentError: EQ831, no such experiment, or a name is needed.
    """
    known = read_all(store)
    if name is not None:
        named = [one for one in known if one.terms.experiment == name]
        if named:
            return named[0]
        raise ExperimentError(
            name, "no such experiment", code="EQ831", hint="`edgeq ab list` shows the experiments"
        )
    going = [one for one in known if not one.finished] or known[-1:]
    if len(going) == 1:
        return going[0]
    if not going:
        hint = "`edgeq ab start BUNDLE --to DEVICES` begins one"
        raise ExperimentError("experiment", "there is none", code="EQ831", hint=hint)
    names = ", ".join(one.terms.experiment for one in going)
    hint = "name it: `edgeq ab status EXPERIMENT`"
    raise ExperimentError("experiment", expected=f"one of {names}", got="no name", code="EQ831", hint=hint)


def next_name(store: Store, model: str, release: str) -> str:
    """Return a name that no experiment had."""
    used = {event.experiment for event in store.experiments()}
    base, number = f"{model}-{release[:8]}", 1
    while f"{base}-{number}" in used:
        number += 1
    return f"{base}-{number}"


@contextmanager
def changing(workspace: Path) -> Iterator[None]:
    """Let one process at a time begin or end an experiment of a workspace.

    Raises:
        ExperimentError: EQ830, the workspace's folder of experiments cannot be written.
    """
    folder = workspace / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / "lock").open("w")
    except OSError as error:
        raise _not_written(error, folder) from error
    with stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def bundle_path(workspace: Path, experiment: str) -> Path:
    """Return where an experiment's bundle is kept, so that the file it began with may go."""
    return workspace / FOLDER / experiment / BUNDLE


def keep_bundle(workspace: Path, experiment: str, data: bytes) -> None:
    """Keep an experiment's bundle.

    Raises:
        ExperimentError: EQ830, it cannot be written.
    """
    path = bundle_path(workspace, experiment)
    try:
        write_atomic(path, data, mode=0o600)
    except OSError as error:
        raise _not_written(error, path) from error


def _not_written(error: OSError, path: Path) -> ExperimentError:
    return ExperimentError(
        str(error.filename or path),
        f"cannot be written: {error.strerror}",
        hint="check the folder's permissions and room, or choose another --workspace",
    )


def actor() -> str:
    """Return the operating system's name of who runs this; no variable can say another one."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def references(store: Store, terms: Terms) -> Mapping[str, Mapping[str, Any] | None]:
    """Return what the store knows of both releases' references."""
    known = {release: store.release(release) for release in terms.releases.values()}
    return {release: record.reference if record else None for release, record in known.items()}
