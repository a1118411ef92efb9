"""Experiment records: events in the store, and the experiment that they add up to."""

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
from edgeq.experiment.config import ExperimentConfig
from edgeq.files import write_atomic
from edgeq.store import ExperimentRecord, Store

FOLDER = Path(".edgeq", "experiments")
BUNDLE = "bundle.eqb"


class ExperimentState(StrEnum):
    """Whether an experiment runs, or how it ended."""

    RUNNING = "running"
    STOPPED = "stopped"
    PROMOTED = "promoted"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """The event that ended an experiment.

    Attributes:
        by: the user who ended it.
        because: the reason, if one was given.
        document: the event as it was recorded: also on what data it was decided.
    """

    state: ExperimentState
    at_ns: int
    by: str
    because: str | None
    document: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return the event as in `--json`."""
        return {"event": self.state.value, "at_ns": self.at_ns, "by": self.by, **self.document}


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """An experiment as its events describe it.

    Attributes:
        closed: devices from which the experiment has been removed.
        ending: who ended it, when, why, and on what data; None while it runs.
    """

    config: ExperimentConfig
    state: ExperimentState
    started_ns: int
    started_by: str
    closed: tuple[str, ...] = ()
    ending: Ending | None = None

    @property
    def open(self) -> tuple[str, ...]:
        """Devices from which the experiment has not been removed yet."""
        return tuple(name for name in self.config.devices if name not in self.closed)

    @property
    def finished(self) -> bool:
        """Whether it has ended and been removed from every device."""
        return self.state is not ExperimentState.RUNNING and not self.open

    def to_dict(self) -> dict[str, Any]:
        """Return the experiment as in `--json`."""
        return {
            **self.config.to_dict(),
            "state": self.state.value,
            "started_ns": self.started_ns,
            "started_by": self.started_by,
            "open": list(self.open)
            if self.state is not ExperimentState.RUNNING
            else list(self.config.devices),
            "ending": None if self.ending is None else self.ending.to_dict(),
        }


def fold(events: Sequence[ExperimentRecord]) -> Experiment:
    """Return the experiment that events add up to; the first event has its configuration.

    Raises:
        ExperimentError: EQ838; an event is damaged, or a newer edgeq wrote it.
    """
    try:
        return _folded(events)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ExperimentError(
            events[0].experiment,
            f"its record in the store cannot be read ({type(error).__name__}: {error})",
            hint="update edgeq if a newer version wrote it; else restore .edgeq/store.db from a backup",
            code="EQ838",
        ) from error


def _folded(events: Sequence[ExperimentRecord]) -> Experiment:
    first = events[0]
    if first.event != "started":
        raise ValueError(f"its first event is {first.event!r}, not 'started'")
    experiment = Experiment(
        config=ExperimentConfig.from_dict(first.body["terms"]),
        state=ExperimentState.RUNNING,
        started_ns=first.at_ns,
        started_by=first.actor,
    )
    for event in events[1:]:
        if not isinstance(event.body, Mapping):
            raise ValueError(f"{event.event}: expected an object")
        if event.event == "closed":
            names = tuple(name for name in event.body["devices"] if name not in experiment.closed)
            experiment = replace(experiment, closed=experiment.closed + names)
        elif experiment.ending is None:
            ending = _ending(event)
            experiment = replace(experiment, state=ending.state, ending=ending)
    return experiment


def _ending(event: ExperimentRecord) -> Ending:
    because = event.body.get("because")
    if because is not None and not isinstance(because, str):
        raise ValueError(f"{event.event}: because: expected a text")
    return Ending(
        state=ExperimentState(event.event),
        at_ns=event.at_ns,
        by=event.actor,
        because=because,
        document=event.body,
    )


def read_all(store: Store) -> list[Experiment]:
    """Return all experiments, in the order in which they started."""
    events: dict[str, list[ExperimentRecord]] = {}
    for event in store.experiments():
        events.setdefault(event.experiment, []).append(event)
    return [fold(each) for each in events.values()]


def find(store: Store, name: str | None) -> Experiment:
    """Return an experiment by its name; without a name, the only one that is not finished.

    Raises:
        ExperimentError: EQ831; there is no such experiment, or several could be meant.
    """
    known = read_all(store)
    if name is not None:
        named = [experiment for experiment in known if experiment.config.experiment == name]
        if named:
            return named[0]
        raise ExperimentError(
            name, "no such experiment", code="EQ831", hint="`edgeq ab list` shows the experiments"
        )
    candidates = [experiment for experiment in known if not experiment.finished] or known[-1:]
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        hint = "`edgeq ab start BUNDLE --to DEVICES` starts one"
        raise ExperimentError("experiment", "there is none", code="EQ831", hint=hint)
    names = ", ".join(experiment.config.experiment for experiment in candidates)
    hint = "name it: `edgeq ab status EXPERIMENT`"
    raise ExperimentError("experiment", expected=f"one of {names}", got="no name", code="EQ831", hint=hint)


def next_name(store: Store, model: str, release: str) -> str:
    """Return a name that no experiment of the store has used."""
    used = {event.experiment for event in store.experiments()}
    base, number = f"{model}-{release[:8]}", 1
    while f"{base}-{number}" in used:
        number += 1
    return f"{base}-{number}"


@contextmanager
def changing(workspace: Path) -> Iterator[None]:
    """Hold the workspace's lock for starting or ending experiments; other processes wait.

    Raises:
        ExperimentError: EQ830; the workspace's folder of experiments cannot be written.
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
    """Return the path of the copy of an experiment's bundle; the original file may be deleted."""
    return workspace / FOLDER / experiment / BUNDLE


def keep_bundle(workspace: Path, experiment: str, data: bytes) -> None:
    """Store a copy of an experiment's bundle in the workspace.

    Raises:
        ExperimentError: EQ830; it cannot be written.
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
        hint="check the folder's permissions and free space, or choose another --workspace",
    )


def actor() -> str:
    """Return the user name of this process from the operating system, not from an environment variable."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"
