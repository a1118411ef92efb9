"""A/B split: which share of the keys goes to which release, stable by hash.

`models/NAME/split.json`, replaced atomically, read by every runtime of the model:

    {"schema": "edgeq.split/1", "salt": "kws-2025-06",
     "arms": [{"name": "a", "release": "current", "weight": 0.9},
              {"name": "b", "release": "<64 hex digits>", "weight": 0.1}],
     "base": "<64 hex digits>",     optional: it counts only while `current` names this release
     "experiment": "kws-1a2b-1",    optional: goes into the windows of the arms
     "draw": "calls"}               optional: calls without a key are drawn one by one, not by device

A release is an id (or its beginning), `current` or `previous`; weights are 0 or more, and only their ratio
counts. Each arm draws from a key a number that depends on salt, arm and key alone: E = -ln(u) / weight, with
u in (0, 1) from SHA-256("salt\\0arm\\0key"). The smallest wins, so arm i wins with the probability
weight_i / sum of weights, and a change of one weight moves keys only into that arm or only out of it: nobody
else's key changes sides.
"""

from __future__ import annotations

import hashlib
import math
import os
import sys
from typing import Any, Mapping, NamedTuple, Sequence

from edgeq_agent.calls import request
from edgeq_agent.errors import AgentError, InferenceError
from edgeq_agent.storage import disk, files
from edgeq_agent.storage.home import Home

SCHEMA = "edgeq.split/1"
_MOST_ARMS = 8
_LONGEST = 200
_LARGEST = sys.float_info.max
BY_DEVICE = "device"
BY_CALL = "calls"


class SplitUnusable(InferenceError):
    """An A/B split that cannot be applied as described (EQ546)."""

    kind_code = "EQ546"
    kind = "split"


class Arm(NamedTuple):
    """One side of a split; `release` as it is written, not yet looked up."""

    name: str
    release: str
    weight: float


class Split(NamedTuple):
    """Arms and the salt that makes this experiment's draw another than the last one's."""

    arms: tuple[Arm, ...]
    salt: str
    base: str | None = None
    experiment: str = ""
    draw: str = BY_DEVICE

    def counts_under(self, current: str | None) -> bool:
        """Tell whether it is served while `current` is the release that the link names."""
        return self.base is None or self.base == current

    def body(self) -> dict[str, Any]:
        """Return what is stored and told."""
        found: dict[str, Any] = {
            "schema": SCHEMA,
            "salt": self.salt,
            "arms": [dict(arm._asdict()) for arm in self.arms],
        }
        if self.base is not None:
            found["base"] = self.base
        if self.experiment:
            found["experiment"] = self.experiment
        if self.draw != BY_DEVICE:
            found["draw"] = self.draw
        return found


def choose(arms: Sequence[tuple[str, float]], salt: str, key: str) -> int:
    """Return the number of the arm that a key belongs to.

    Args:
        arms: (name, weight) of each; at least one weight is above 0.
    """
    best, winner = math.inf, 0
    for number, (name, weight) in enumerate(arms):
        if weight <= 0:
            continue
        digest = hashlib.sha256(f"{salt}\0{name}\0{key}".encode("utf-8", "surrogatepass")).digest()
        # 53 bits, and half a step: never 0 and never 1.
        uniform = ((int.from_bytes(digest[:8], "big") >> 11) + 0.5) / (1 << 53)
        drawn = -math.log(uniform) / weight
        if drawn < best:
            best, winner = drawn, number
    return winner


def parse(body: Any, subject: str) -> Split:
    """Return the split that a JSON value describes.

    Raises:
        SplitUnusable: EQ546, it describes none.
    """
    try:
        if not isinstance(body, dict) or body.get("schema") != SCHEMA:
            raise request.bad("schema", SCHEMA, body.get("schema") if isinstance(body, dict) else body)
        entries = body.get("arms")
        if not isinstance(entries, list) or not 1 <= len(entries) <= _MOST_ARMS:
            raise request.bad("arms", f"a list of 1 to {_MOST_ARMS} arms", entries)
        arms = tuple(_arm(entry) for entry in entries)
        draw = body.get("draw", BY_DEVICE)
        if draw not in (BY_DEVICE, BY_CALL):
            raise request.bad("draw", f"{BY_DEVICE} or {BY_CALL}", draw)
        salt, experiment = (_short(body, name) if body.get(name) else "" for name in ("salt", "experiment"))
        base = request.sha256(body, "base") if body.get("base") is not None else None
        return _checked(Split(arms, salt, base, experiment, draw), subject)
    except AgentError as error:
        raise SplitUnusable(f"{subject} {error.subject}", error.problem, error.expected, error.got) from error


def _arm(entry: Any) -> Arm:
    if not isinstance(entry, dict):
        raise request.bad("arms", "objects with name, release and weight", entry)
    if "weight" not in entry:
        raise request.bad("arms.weight", "a number, 0 or more", None)
    return Arm(_short(entry, "name"), _short(entry, "release"), request.number(entry, "weight", 0.0))


def _short(body: dict[str, Any], field: str) -> str:
    value = request.text(body, field)
    if len(value) > _LONGEST or not value.isprintable():
        raise request.bad(field, f"a printable text of at most {_LONGEST} characters", value)
    return value


def _checked(split: Split, subject: str) -> Split:
    names = [arm.name for arm in split.arms]
    if len(set(names)) != len(names):
        raise SplitUnusable(subject, expected="arms of different names", got=", ".join(names))
    total = sum(arm.weight for arm in split.arms)
    if not total > 0:
        raise SplitUnusable(subject, expected="a weight above 0", got="0 in all")
    if not total < math.inf:  # nothing can be drawn from those
        raise SplitUnusable(subject, expected="weights whose sum is a number", got="a sum beyond any")
    return split


def path_of(place: Home, model: str) -> str:
    """Return where a model's split is described."""
    return os.path.join(place.model(model), "split.json")


def read(place: Home, model: str) -> Split | None:
    """Return the split on the device, or None.

    Raises:
        SplitUnusable: EQ546, the file describes none.
    """
    subject = "split.json of " + model
    try:
        body = files.read_json(path_of(place, model))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise SplitUnusable(subject, f"no JSON: {error}") from error
    return parse(body, subject)


def write(place: Home, model: str, split: Split) -> None:
    """Put a split onto the device, durably; every runtime of the model takes it up at its next look."""
    body = split.body()
    parse(body, "split of " + model)
    files.write_json(path_of(place, model), body)


def remove(place: Home, model: str) -> None:
    """End a split, durably: `current` alone serves."""
    files.remove(path_of(place, model))
    disk.sync_folder(place.model(model))


def weighted(stored: Split | None, weights: Mapping[str, float], model: str) -> Split:
    """Return the split that an application asks for by `{arm or release: weight}`.

    A name that the device's split.json has stands for that arm's release, and the salt is that file's.

    Raises:
        SplitUnusable: EQ546, a weight is no number of 0 or more, or none is above 0.
    """
    known = {arm.name: arm.release for arm in stored.arms} if stored else {}
    arms = []
    for name, weight in weights.items():
        good = isinstance(weight, (int, float)) and not isinstance(weight, bool) and 0 <= weight <= _LARGEST
        if not good:
            raise SplitUnusable(
                f"split of {model}: {name}", expected="a weight of 0 or more", got=repr(weight)
            )
        arms.append(Arm(str(name), known.get(str(name), str(name)), float(weight)))
    return _checked(Split(tuple(arms), stored.salt if stored else model), "split of " + model)
