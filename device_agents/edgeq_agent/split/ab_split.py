"""The A/B split of a model: which share of the keys each release gets, stable by hash.

`models/NAME/split.json`, replaced atomically, read by every runtime of the model:

    {"schema": "edgeq.split/1", "salt": "kws-2025-06",
     "arms": [{"name": "a", "release": "current", "weight": 0.9},
              {"name": "b", "release": "<64 hex digits>", "weight": 0.1}],
     "base": "<64 hex digits>",     optional: in force only while `current` names this release
     "experiment": "kws-1a2b-1",    optional: copied into the telemetry windows of the arms
     "draw": "calls"}               optional: calls without a key are drawn one by one, not by device

A release is an id (or the beginning of one), `current` or `previous`. Weights are 0 or more, and only their
ratio matters. Weighted rendezvous hashing assigns a key: each arm draws E = -ln(u) / weight, with u in (0, 1)
from SHA-256("salt\\0arm\\0key"), and the smallest E wins. So arm i wins with probability
weight_i / sum of weights, and when one weight changes, keys move only into that arm or only out of it.
"""

from __future__ import annotations

import hashlib
import math
import os
import sys
from typing import Any, Mapping, NamedTuple, Sequence

from edgeq_agent.calls.fields import Fields
from edgeq_agent.errors import AgentError, InferenceError
from edgeq_agent.storage import disk, files, scratch
from edgeq_agent.storage.home import Home
from edgeq_agent.wire import Json

SCHEMA = "edgeq.split/1"
BY_DEVICE = "device"
BY_CALL = "calls"
_MAX_ARMS = 8
_MAX_CHARACTERS = 200
_LARGEST = sys.float_info.max


class SplitUnusable(InferenceError):
    """An A/B split that cannot be applied as described (EQ546)."""

    kind_code = "EQ546"
    kind = "split"


class Arm(NamedTuple):
    """One arm of a split; `release` as it is written, not resolved."""

    name: str
    release: str
    weight: float


class Split(NamedTuple):
    """A split.

    Attributes:
        salt: makes the assignment of keys differ from that of other experiments.
        base: the split is in force only while this release serves; None for always.
        experiment: its name; empty when it has none.
        draw: whether calls without a key are assigned by device or one by one.
    """

    arms: tuple[Arm, ...]
    salt: str
    base: str | None = None
    experiment: str = ""
    draw: str = BY_DEVICE

    def in_force(self, current: str | None) -> bool:
        """Return whether the split divides the calls while `current` is the release that serves."""
        return self.base is None or self.base == current

    def to_json(self) -> Json:
        """Return the content of the split file."""
        body: Json = {
            "schema": SCHEMA,
            "salt": self.salt,
            "arms": [dict(arm._asdict()) for arm in self.arms],
        }
        if self.base is not None:
            body["base"] = self.base
        if self.experiment:
            body["experiment"] = self.experiment
        if self.draw != BY_DEVICE:
            body["draw"] = self.draw
        return body


def choose(arms: Sequence[tuple[str, float]], salt: str, key: str) -> int:
    """Return the index of the arm that a key is assigned to.

    Args:
        arms: (name, weight) of each; at least one weight is above 0.
    """
    smallest, winner = math.inf, 0
    for index, (name, weight) in enumerate(arms):
        if weight <= 0:
            continue
        digest = hashlib.sha256(f"{salt}\0{name}\0{key}".encode("utf-8", "surrogatepass")).digest()
        # 53 bits and half a step: never 0 and never 1.
        uniform = ((int.from_bytes(digest[:8], "big") >> 11) + 0.5) / (1 << 53)
        drawn = -math.log(uniform) / weight
        if drawn < smallest:
            smallest, winner = drawn, index
    return winner


def parse(body: Any, subject: str) -> Split:
    """Return the split that a JSON value describes.

    Raises:
        SplitUnusable: EQ546, it does not describe a split.
    """
    try:
        fields = Fields(body if isinstance(body, dict) else {"schema": body})
        if fields.raw("schema") != SCHEMA:
            raise fields.refuse("schema", SCHEMA)
        arms = fields.list_of("arms", _arm, f"a list of 1 to {_MAX_ARMS} arms", low=1, high=_MAX_ARMS)
        split = Split(
            arms=tuple(arms),
            salt=_short(fields, "salt") if fields.raw("salt") else "",
            base=fields.sha256("base") if fields.has("base") else None,
            experiment=_short(fields, "experiment") if fields.raw("experiment") else "",
            draw=fields.one_of("draw", (BY_DEVICE, BY_CALL), BY_DEVICE),
        )
        return _checked(split, subject)
    except SplitUnusable:
        raise
    except AgentError as error:
        raise SplitUnusable(f"{subject} {error.subject}", error.problem, error.expected, error.got) from error


def _arm(items: Fields, name: str) -> Arm:
    arm = items.object(name, "objects with name, release and weight")
    if "weight" not in arm:
        raise arm.refuse("weight", "a number, 0 or more")
    return Arm(_short(arm, "name"), _short(arm, "release"), arm.number("weight", 0.0))


def _short(fields: Fields, name: str) -> str:
    value = fields.text(name)
    if len(value) > _MAX_CHARACTERS or not value.isprintable():
        raise fields.refuse(name, f"a printable text of at most {_MAX_CHARACTERS} characters")
    return value


def _checked(split: Split, subject: str) -> Split:
    names = [arm.name for arm in split.arms]
    if len(set(names)) != len(names):
        raise SplitUnusable(subject, expected="arms of different names", got=", ".join(names))
    total = sum(arm.weight for arm in split.arms)
    if not total > 0:
        raise SplitUnusable(subject, expected="a weight above 0", got="a sum of 0")
    if not total < math.inf:  # nothing can be drawn with such weights
        raise SplitUnusable(subject, expected="weights with a finite sum", got="a sum that is too large")
    return split


def path_of(home: Home, model: str) -> str:
    """Return the path of a model's split file."""
    return os.path.join(home.model(model), "split.json")


def read(home: Home, model: str) -> Split | None:
    """Return the split on the device, or None when there is no file.

    Raises:
        SplitUnusable: EQ546, the file does not describe a split.
    """
    subject = "split.json of " + model
    try:
        body = files.read_json(path_of(home, model))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise SplitUnusable(subject, f"not JSON: {error}", hint="`edgeq ab stop` removes it") from error
    return parse(body, subject)


def write(home: Home, model: str, split: Split) -> None:
    """Write a split, durably; every runtime of the model applies it at its next poll.

    Raises:
        SplitUnusable: EQ546, it is not valid.
    """
    body = split.to_json()
    parse(body, "split of " + model)
    path = path_of(home, model)
    if os.path.isdir(path):  # no file can replace it
        scratch.remove(path)
    files.write_json(path, body)


def remove(home: Home, model: str) -> None:
    """End a split, durably: from then on only `current` serves."""
    if os.path.isdir(path_of(home, model)):
        scratch.remove(path_of(home, model))
    files.remove(path_of(home, model))
    disk.sync_folder(home.model(model))


def weighted(stored: Split | None, weights: Mapping[str, float], model: str) -> Split:
    """Return the split that an application requests as `{arm or release: weight}`.

    A name that the device's split.json has means that arm's release. The salt is that file's.

    Raises:
        SplitUnusable: EQ546, a weight is not a number of 0 or more, or none is above 0.
    """
    known = {arm.name: arm.release for arm in stored.arms} if stored else {}
    arms = []
    for name, weight in weights.items():
        valid = isinstance(weight, (int, float)) and not isinstance(weight, bool) and 0 <= weight <= _LARGEST
        if not valid:
            raise SplitUnusable(
                f"split of {model}: {name}", expected="a weight of 0 or more", got=repr(weight)
            )
        arms.append(Arm(str(name), known.get(str(name), str(name)), float(weight)))
    return _checked(Split(tuple(arms), stored.salt if stored else model), "split of " + model)
