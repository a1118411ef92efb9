"""The terms of a rollout: what goes where, in which stages, and when to stop; fixed when it begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from edgeq.fleet.rollout.abort import Rules, parse_rules


class OnAbort(StrEnum):
    """What follows an abort."""

    STOP = "stop"
    ROLLBACK = "rollback"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTerms:
    """One stage as it was decided: its text and the devices that it adds."""

    text: str
    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What was agreed at the start; the first line of the journal.

    Attributes:
        selectors: the `--to` that chose the devices.
        soak_s: how long a stage must go on serving before the next one begins; 0 asks once.
        at_once: how many devices are worked on at a time.
    """

    rollout: str
    model: str
    release: str
    selectors: tuple[str, ...]
    stages: tuple[StageTerms, ...]
    rules: Rules
    soak_s: float
    on_abort: OnAbort
    at_once: int

    @property
    def devices(self) -> tuple[str, ...]:
        """All devices, in the order of their stages."""
        return tuple(name for stage in self.stages for name in stage.devices)

    def to_dict(self) -> dict[str, Any]:
        """The terms as in the journal and in `--json`."""
        return {
            "rollout": self.rollout,
            "model": self.model,
            "release": self.release,
            "to": list(self.selectors),
            "stages": [{"stage": stage.text, "devices": list(stage.devices)} for stage in self.stages],
            "abort": self.rules.text,
            "soak_s": self.soak_s,
            "on_abort": self.on_abort.value,
            "at_once": self.at_once,
        }

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Terms:
        """Return the terms of a journal.

        Raises:
            KeyError, TypeError, ValueError, UsageError: they are not what `to_dict` writes.
        """
        return cls(
            rollout=str(body["rollout"]),
            model=str(body["model"]),
            release=str(body["release"]),
            selectors=tuple(body["to"]),
            stages=tuple(
                StageTerms(text=stage["stage"], devices=tuple(stage["devices"])) for stage in body["stages"]
            ),
            rules=parse_rules(body["abort"]),
            soak_s=float(body["soak_s"]),
            on_abort=OnAbort(body["on_abort"]),
            at_once=int(body["at_once"]),
        )
