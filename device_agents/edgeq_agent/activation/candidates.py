"""Candidates: releases that passed the health check here and do not serve; an A/B split may name them.

`models/NAME/staged.json`; an entry keeps its release, blobs and runtime from `prune`:

    {"schema": "edgeq.staged/1",
     "releases": {"<64 hex>": {"runtime": "<64 hex>", "counter": 7, "health": {...}, "since_ns": 1718...,
                               "signed_by": ["<key id>", ...]}}}

A split is in force while the release serves that served when it was set. When another release is committed,
the split ends and is removed here. During that release's soak the split is suspended: it is in force again
when the soak fails.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from edgeq_agent.activation import states
from edgeq_agent.activation.state_record import StateRecord
from edgeq_agent.calls.fields import SHA256
from edgeq_agent.errors import one_line
from edgeq_agent.releases import release_store
from edgeq_agent.split import ab_split
from edgeq_agent.split.ab_split import Split, SplitUnusable
from edgeq_agent.storage import files
from edgeq_agent.storage.home import Home
from edgeq_agent.wire import Json

SCHEMA = "edgeq.staged/1"
# A split has as many arms; each candidate takes the space of a release.
LIMIT = 8


@dataclass(frozen=True)
class CandidateRelease:
    """One candidate.

    Attributes:
        runtime: digest of the runtime that it was checked with.
        counter: the release counter of its manifest.
        health: the health check as the response has it; the device stores it and does not read it.
        since_ns: wall-clock time at which it became a candidate; for display only.
        signed_by: ids of the trusted keys that had signed it; empty where an earlier agent staged it.
    """

    runtime: str
    counter: int
    health: Json
    since_ns: int | None = None
    signed_by: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, body: Any) -> CandidateRelease:
        """Return the candidate that an entry of the file describes.

        Raises:
            ValueError: it describes none.
        """
        if not (
            isinstance(body, dict)
            and SHA256.fullmatch(str(body.get("runtime")))
            and type(body.get("counter")) is int
            and isinstance(body.get("health"), dict)
            and isinstance(body.get("since_ns"), (int, type(None)))
        ):
            raise ValueError("not an entry of " + SCHEMA)
        signed_by = body.get("signed_by", [])
        if not isinstance(signed_by, list):
            raise ValueError("not an entry of " + SCHEMA)
        signers = tuple(map(str, signed_by))
        return cls(body["runtime"], body["counter"], body["health"], body.get("since_ns"), signers)

    def to_json(self) -> Json:
        """Return the entry of the file."""
        body: Json = {"runtime": self.runtime, "counter": self.counter, "health": self.health}
        if self.since_ns is not None:
            body["since_ns"] = self.since_ns
        if self.signed_by:
            body["signed_by"] = list(self.signed_by)
        return body


def read(home: Home, model: str) -> dict[str, CandidateRelease]:
    """Return the candidates of a model by release, the oldest first; none when the file is damaged.

    `retention` keeps everything that a damaged file may have named.
    """
    try:
        return _read(home, model)
    except ValueError:
        return {}


def damaged(home: Home, model: str) -> bool:
    """Return whether the file exists but cannot be read."""
    try:
        _read(home, model)
    except ValueError:
        return True
    return False


def _read(home: Home, model: str) -> dict[str, CandidateRelease]:
    try:
        return parse(files.read_json(path_of(home, model)))
    except FileNotFoundError:
        return {}


def parse(body: Any) -> dict[str, CandidateRelease]:
    """Return the candidates that a file names.

    Raises:
        ValueError: it is not a file of candidates.
    """
    entries = body.get("releases") if isinstance(body, dict) and body.get("schema") == SCHEMA else None
    if not isinstance(entries, dict) or not all(map(SHA256.fullmatch, entries)):
        raise ValueError("is not " + SCHEMA)
    return {release: CandidateRelease.from_json(entry) for release, entry in entries.items()}


def write(home: Home, model: str, candidates: dict[str, CandidateRelease]) -> None:
    """Replace the candidates of a model, durably."""
    entries = {release: candidate.to_json() for release, candidate in candidates.items()}
    files.write_json(path_of(home, model), {"schema": SCHEMA, "releases": entries})


def path_of(home: Home, model: str) -> str:
    """Return the path of a model's candidates file."""
    return os.path.join(home.model(model), "staged.json")


def runtime_of(home: Home, model: str, release: str) -> str | None:
    """Return the digest of the runtime that a release was checked with last; None when it is not known."""
    candidate = None if release == release_store.current(home, model) else read(home, model).get(release)
    # A candidate may have served long ago: the runtime that it had then is not kept.
    return candidate.runtime if candidate else states.read(home, model).runtime_of(release)


def split_in_force(home: Home, model: str) -> Split | None:
    """Return the split that divides the calls now, or None.

    Raises:
        SplitUnusable: EQ546, the file does not describe a split.
    """
    split = ab_split.read(home, model)
    return split if split is not None and split.in_force(release_store.current(home, model)) else None


@dataclass(frozen=True)
class SplitStatus:
    """The split of a model and its candidates.

    Attributes:
        split: None when there is none, or when its file cannot be read.
        problem: why its file cannot be read; None when it can.
        in_force: the split divides the calls now.
    """

    split: Split | None
    problem: str | None
    in_force: bool
    candidates: dict[str, CandidateRelease]

    @property
    def present(self) -> bool:
        """Whether there is a split file, readable or not."""
        return self.split is not None or self.problem is not None

    def to_json(self) -> Json:
        """Return the status as a response has it."""
        split: Json | None = self.split.to_json() if self.split else None
        if self.problem is not None:
            split = {"problem": self.problem}
        staged = {release: candidate.to_json() for release, candidate in self.candidates.items()}
        return {"split": split, "in_force": self.in_force, "staged": staged}


def status(home: Home, model: str) -> SplitStatus:
    """Return the split and the candidates of a model."""
    candidates = read(home, model)
    try:
        split = ab_split.read(home, model)
    except SplitUnusable as error:
        return SplitStatus(None, one_line(error), in_force=False, candidates=candidates)
    in_force = split is not None and split.in_force(release_store.current(home, model))
    return SplitStatus(split, None, in_force, candidates)


def settle(home: Home, record: StateRecord) -> None:
    """Remove a split that has ended, and the entry of a candidate that serves now (lock held)."""
    if record.state in states.PENDING:
        return  # the release that serves is soaking: the previous one and its split may return
    current = release_store.current(home, record.model)
    try:
        split = ab_split.read(home, record.model)
    except SplitUnusable:
        split = None  # no runtime applies it; the verb `split` replaces or clears it
    if split is not None and not split.in_force(current):
        ab_split.remove(home, record.model)
    candidates = read(home, record.model)
    if current in candidates:
        write(home, record.model, {name: each for name, each in candidates.items() if name != current})
