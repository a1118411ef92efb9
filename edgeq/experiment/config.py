"""Experiment configuration: the hypothesis and its limits, fixed when the experiment starts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from edgeq.errors import UsageError


class SplitBy(StrEnum):
    """What the split assigns to an arm."""

    CALLS = "calls"
    DEVICES = "devices"


def is_salt(text: str) -> bool:
    """Return whether a text may be a salt: it is printable, not empty, and at most 200 characters long."""
    return 0 < len(text) <= 200 and text.isprintable()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentTerms:
    """The choices of the person who starts an experiment; as attributes of `ExperimentConfig`.

    Attributes:
        salt: None takes the experiment's name.

    Raises:
        UsageError: a value is out of its range.
    """

    by: SplitBy = SplitBy.CALLS
    share: float = 0.1
    salt: str | None = None
    alpha: float = 0.05
    worse_by: float = 0.02
    slower_by: float = 0.1

    def __post_init__(self) -> None:
        for name in ("share", "alpha"):
            value = getattr(self, name)
            if not 0 < value < 1:
                raise UsageError(name, expected="more than 0 and less than 1", got=f"{value:g}")
        for name, most in (("worse_by", 1), ("slower_by", 10)):
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise UsageError(name, expected=f"0 to {most}", got=f"{value:g}")
        if self.salt is not None and not is_salt(self.salt):
            raise UsageError("salt", expected="a printable text of at most 200 characters")

    def fit(self, config: ExperimentConfig) -> bool:
        """Return whether an experiment has these terms; without a salt, it may have any."""
        return self.salt in (None, config.salt) and (
            (self.by, self.share, self.alpha, self.worse_by, self.slower_by)
            == (config.by, config.share, config.alpha, config.worse_by, config.slower_by)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentConfig:
    """The configuration of an experiment; it never changes while the experiment runs.

    Attributes:
        release_a: the release that served when the experiment started.
        release_b: the candidate.
        share: share of calls or devices that get B, 0 to 1.
        salt: seed of the assignment.
        arms: each device's arm: `a` or `b` in a split by devices, `ab` (both) in a split by calls.
        alpha: probability that any interval of the experiment is ever wrong.
        worse_by: how much lower B's rate of right answers may be for a promotion, 0 to 1.
        slower_by: how much higher B's latency p95 may be for a promotion, as a share of A's.
    """

    experiment: str
    model: str
    release_a: str
    release_b: str
    by: SplitBy
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
        """Return the configuration as it is stored and as in `--json`."""
        return {**asdict(self), "by": self.by.value, "arms": dict(self.arms)}

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> ExperimentConfig:
        """Return the configuration of a `to_dict`.

        Raises:
            ValueError, TypeError, KeyError: the body is not a valid configuration.
        """
        config = cls(**{**body, "by": SplitBy(body["by"])})
        for name in ("experiment", "model", "release_a", "release_b", "salt"):
            if not isinstance(getattr(config, name), str):
                raise ValueError(f"{name}: expected a text")
        for name in ("share", "alpha", "worse_by", "slower_by"):
            value = getattr(config, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 10:
                raise ValueError(f"{name}: expected a number")
        if not isinstance(config.arms, Mapping) or not set(config.arms.values()) <= {"a", "b", "ab"}:
            raise ValueError("arms: expected an arm for each device")
        return config


def assign(devices: Sequence[str], share: float, salt: str) -> dict[str, str]:
    """Return each device's arm: devices are sorted by SHA-256(salt, name), and the first ones get B.

    Each arm gets at least one device. The arms depend on the salt and the names alone, not on their order.
    """
    ranked = sorted(devices, key=lambda name: (hashlib.sha256(f"{salt}\0{name}".encode()).digest(), name))
    count = min(max(1, round(share * len(ranked))), len(ranked) - 1)
    chosen = set(ranked[:count])
    return {name: "b" if name in chosen else "a" for name in devices}
