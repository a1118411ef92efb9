"""What an experiment is: fixed when it begins, so that nobody moves the goal while it runs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class By(StrEnum):
    """What the split divides."""

    CALLS = "calls"
    DEVICES = "devices"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The terms of an experiment.

    Attributes:
        release_a, release_b: the one that served when it began, and the one that is tried.
        share: of B.
        arms: each device's arm in a split by devices: `a` or `b`; in a split by calls each has both (`ab`).
        alpha: the chance that any interval of the experiment is ever wrong.
        worse_by: by how much B's rate of right answers may be lower and still be promoted.
        slower_by: by which share B's latency may be higher and still be promoted.
    """

    experiment: str
    model: str
    release_a: str
    release_b: str
    by: By
    share: float
    salt: str
    arms: Mapping[str, str]
    alpha: float = 0.05
    worse_by: float = 0.02
    slower_by: float = 0.1

    @property
    def devices(self) -> tuple[str, ...]:
        """The names of the devices."""
        return tuple(self.arms)

    @property
    def releases(self) -> dict[str, str]:
        """Arm -> release."""
        return {"a": self.release_a, "b": self.release_b}

    def weights(self, device: str) -> dict[str, float]:
        """Return the weights of a device's arms."""
        arm = self.arms[device]
        share = self.share if arm == "ab" else float(arm == "b")
        return {"a": 1 - share, "b": share}

    def to_dict(self) -> dict[str, Any]:
        """The terms as they are stored and told."""
        return {**asdict(self), "by": self.by.value, "arms": dict(self.arms)}

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Terms:
        """Return the terms that `to_dict` gave.

        Raises:
            ValueError, TypeError, KeyError: it gave no such thing.
        """
        found = cls(**{**body, "by": By(body["by"])})
        for name in ("experiment", "model", "release_a", "release_b", "salt"):
            if not isinstance(getattr(found, name), str):
                raise ValueError(f"{name}: expected a text")
        for name in ("share", "alpha", "worse_by", "slower_by"):
            value = getattr(found, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 10:
                raise ValueError(f"{name}: expected a number")
        if not isinstance(found.arms, Mapping) or not set(found.arms.values()) <= {"a", "b", "ab"}:
            raise ValueError("arms: expected an arm for each device")
        return found


def assign(devices: Sequence[str], share: float, salt: str) -> dict[str, str]:
    """Return each device's arm: in the order of SHA-256(salt, name) the first ones are B's.

    At least one device is in each arm; the same salt and names give the same arms, in whatever order they
    come.
    """
    ranked = sorted(devices, key=lambda name: (hashlib.sha256(f"{salt}\0{name}".encode()).digest(), name))
    count = min(max(1, round(share * len(ranked))), len(ranked) - 1)
    chosen = set(ranked[:count])
    return {name: "b" if name in chosen else "a" for name in devices}
