"""The specification of a rollout: devices, stages and abort rules, fixed when it begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from edgeq.fleet.rollout.abort import Rules, parse_rules


class OnAbort(StrEnum):
    """What to do after an abort."""

    STOP = "stop"
    ROLLBACK = "rollback"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSpec:
    """One stage: its text and the devices that it adds."""

    text: str
    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutSpec:
    """The specification; the first line of the journal.

    Attributes:
        selectors: the `--to` options that chose the devices.
        soak_s: soak time of a stage before the next one begins, in seconds; 0 checks once.
        soak: the soak time as it was written, such as `10m`; empty where it was not written.
        at_once: how many devices are processed at a time.
    """

    rollout: str
    model: str
    release: str
    selectors: tuple[str, ...]
    stages: tuple[StageSpec, ...]
    rules: Rules
    soak_s: float
    on_abort: OnAbort
    at_once: int
    soak: str = ""

    @property
    def soak_text(self) -> str:
        """The soak time as it was written."""
        return self.soak or f"{self.soak_s:g} s"

    @property
    def devices(self) -> tuple[str, ...]:
        """All devices, in the order of their stages."""
        return tuple(name for stage in self.stages for name in stage.devices)

    def to_dict(self) -> dict[str, Any]:
        """The specification as in the journal and in `--json`."""
        return {
            "rollout": self.rollout,
            "model": self.model,
            "release": self.release,
            "to": list(self.selectors),
            "stages": [{"stage": stage.text, "devices": list(stage.devices)} for stage in self.stages],
            "abort": self.rules.text,
            "soak_s": self.soak_s,
            **({"soak": self.soak} if self.soak else {}),
            "on_abort": self.on_abort.value,
            "at_once": self.at_once,
        }

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> RolloutSpec:
        """Return the specification in a journal.

        Raises:
            KeyError, TypeError, ValueError, UsageError: the body is not what `to_dict` writes.
        """
        return cls(
            rollout=str(body["rollout"]),
            model=str(body["model"]),
            release=str(body["release"]),
            selectors=tuple(body["to"]),
            stages=tuple(
                StageSpec(text=stage["stage"], devices=tuple(stage["devices"])) for stage in body["stages"]
            ),
            rules=parse_rules(body["abort"]),
            soak_s=float(body["soak_s"]),
            on_abort=OnAbort(body["on_abort"]),
            at_once=int(body["at_once"]),
            soak=str(body.get("soak", "")),
        )
