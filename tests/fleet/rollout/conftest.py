"""A controller over a simulated fleet, with a real journal, that can be killed at any write."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edgeq.fleet.rollout import journal as journals
from edgeq.fleet.rollout.abort import DEFAULT, parse_rules
from edgeq.fleet.rollout.events import Event
from edgeq.fleet.rollout.journal import Journal
from edgeq.fleet.rollout.rollout_store import fold
from edgeq.fleet.rollout.runner import Runner, RunnerTimes
from edgeq.fleet.rollout.spec import OnAbort, RolloutSpec, StageSpec
from edgeq.fleet.rollout.stages import parse_stages, partition
from edgeq.fleet.rollout.state import Rollout
from edgeq.testing.simulated_fleet import Behaviour, SimulatedFleet

RELEASE, BEFORE = "new-release", "old-release"


class Killed(BaseException):
    """The controller died here; nothing catches it."""


class MortalJournal(Journal):
    """Dies at one of its writes: before it, after it, or in the middle of it."""

    writes = 0
    dies_at: int | None = None
    how = "after"

    def write(self, data: bytes) -> None:
        MortalJournal.writes += 1
        mine = MortalJournal.writes == MortalJournal.dies_at
        if mine and self.how == "before":
            raise Killed
        if mine and self.how == "torn":
            with self._path.open("ab") as stream:
                stream.write(data[: len(data) // 2])
            raise Killed
        super().write(data)
        if mine:
            raise Killed


@dataclass(kw_only=True)
class Site:
    """Drives one rollout over a simulated fleet, by its journal alone."""

    folder: Path
    fleet: SimulatedFleet
    request: Callable[[], str | None] = lambda: None
    events: list[Event] = field(default_factory=list)

    @property
    def path(self) -> Path:
        return self.folder / journals.FILE_NAME

    def begin(self, spec: RolloutSpec) -> None:
        Journal.open(self.path)[0].append([{"event": "created", **spec.to_dict()}])

    def append(self, **event: Any) -> None:
        Journal.open(self.path)[0].append([event])

    def read(self) -> Rollout:
        return fold(self.folder, journals.read(self.path))

    def run(self, times: RunnerTimes | None = None) -> Rollout:
        """Run a controller from the state in the journal until it stops."""
        book, entries = MortalJournal.open(self.path)
        rollout = fold(self.folder, entries)
        self.fleet.time.forget()
        Runner(
            rollout=rollout,
            journal=book,
            deployer=self.fleet,
            pool=self.fleet.time,
            clock=self.fleet.time,
            times=times or RunnerTimes(),
            request=self.request,
            on_event=self.events.append,
        ).run()
        again = self.read()  # the journal alone gives the same
        assert (again.state, again.records, again.tally) == (rollout.state, rollout.records, rollout.tally)
        return rollout


def make_terms(
    names: Sequence[str],
    *,
    stages: str = "1,50%,100%",
    abort: str = DEFAULT,
    soak_s: float = 60,
    on_abort: str = "stop",
    at_once: int = 1,
    seed: str = "double-1",
    labels: Mapping[str, Mapping[str, str]] | None = None,
) -> RolloutSpec:
    parsed = parse_stages(stages)
    devices = {name: (labels or {}).get(name, {}) for name in names}
    parts = partition(parsed, devices, seed=seed)
    return RolloutSpec(
        rollout=seed,
        model="double",
        release=RELEASE,
        selectors=("all",),
        stages=tuple(StageSpec(text=s.text, devices=part) for s, part in zip(parsed, parts, strict=True)),
        rules=parse_rules(abort),
        soak_s=soak_s,
        on_abort=OnAbort(on_abort),
        at_once=at_once,
    )


@pytest.fixture
def terms_of() -> Callable[..., RolloutSpec]:
    return make_terms


@pytest.fixture
def simulated(tmp_path: Path) -> Callable[..., Site]:
    """A function that begins a rollout over devices that behave in given ways, in the order of its stages."""
    MortalJournal.writes, MortalJournal.dies_at = 0, None

    def make(
        behaviours: Mapping[int, Behaviour], *, devices: int = 10, folder: str = "", **more: Any
    ) -> Site:
        spec = make_terms([f"d{number}" for number in range(devices)], **more)
        ways = {name: behaviours.get(place, Behaviour.GOOD) for place, name in enumerate(spec.devices)}
        where = tmp_path / (folder or "rollout")
        where.mkdir()
        made = Site(folder=where, fleet=SimulatedFleet(ways, release=RELEASE))
        made.begin(spec)
        return made

    return make


@pytest.fixture
def mortal() -> type[MortalJournal]:
    return MortalJournal


@pytest.fixture
def killed() -> type[BaseException]:
    return Killed
