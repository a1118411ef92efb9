"""Events of a rollout: as they are written into the journal, so are they read."""

from __future__ import annotations

from typing import Any

import pytest

from edgeq.fleet.rollout import events
from edgeq.fleet.rollout.events import KINDS, Event, parse_event
from edgeq.fleet.rollout.outcomes import Outcome
from edgeq.fleet.rollout.state import ALLOWED
from edgeq_agent import wire

# As controllers have always written them.
WRITTEN: list[tuple[Event, dict[str, Any]]] = [
    (events.Looked(device="pi", before=None), {"event": "looked", "device": "pi", "before": None}),
    (events.Deployed(device="pi", changed=True), {"event": "deployed", "device": "pi", "changed": True}),
    (events.Deployed(device="pi"), {"event": "deployed", "device": "pi"}),
    (events.Cleared(device="pi"), {"event": "cleared", "device": "pi"}),
    (
        events.Ended(device="pi", outcome=Outcome.REFUSED, phase="deploy", reason="full", code="EQ501"),
        {"event": "outcome", "device": "pi", "outcome": "refused", "phase": "deploy"}
        | {"reason": "full", "code": "EQ501"},
    ),
    (
        events.Restored(device="pi", result="failed", reason="gone"),
        {"event": "restored", "device": "pi", "result": "failed", "reason": "gone"},
    ),
    (events.Soaking(stage=0), {"event": "soaking", "stage": 0}),
    (events.Advanced(stage=1), {"event": "advanced", "stage": 1}),
    (events.Resumed(), {"event": "resumed"}),
    (events.Resumed(accepted=0), {"event": "resumed", "accepted": 0}),
    (events.Retried(devices=("a", "b")), {"event": "retried", "devices": ["a", "b"]}),
    (events.Done(), {"event": "done"}),
    (events.Paused(reason="r"), {"event": "paused", "reason": "r", "gate": None}),
    (events.Paused(reason="r", gate=0), {"event": "paused", "reason": "r", "gate": 0}),
    (events.Aborted(reason="r"), {"event": "aborted", "reason": "r"}),
    (events.RollingBack(reason="r"), {"event": "rolling_back", "reason": "r"}),
    (events.RolledBack(reason="r"), {"event": "rolled_back", "reason": "r"}),
]


@pytest.mark.parametrize(("event", "body"), WRITTEN)
def test_an_event_is_written_as_ever_and_read_back(event: Event, body: dict[str, Any]) -> None:
    assert wire.canonical(event.to_json()) == wire.canonical(body)
    assert parse_event({**body, "n": 3, "prev": "", "time_ns": 1, "hash": "h", "later": [1]}) == event


def test_every_event_has_a_place_in_the_table_of_states() -> None:
    assert set(KINDS) == set(ALLOWED) == {event.kind for event, _ in WRITTEN}


def test_reasons_may_be_missing() -> None:
    assert parse_event({"event": "aborted"}) == events.Aborted()
    assert parse_event({"event": "outcome", "device": "pi", "outcome": "failed"}).to_json()["reason"] == ""


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"event": "renamed"}, "'renamed' is not an event"),
        ({}, "None is not an event"),
        ({"event": "looked", "device": "pi"}, "looked: before: "),
        ({"event": "outcome", "device": "pi", "outcome": "lost"}, "outcome: outcome: "),
        ({"event": "retried", "devices": "pi"}, "retried: devices: "),
        ({"event": "advanced", "stage": "second"}, "advanced: stage: "),
    ],
)
def test_what_is_not_an_event_is_refused(body: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{problem}"):
        parse_event(body)
