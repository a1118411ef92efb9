"""A response is compared with its request: the recorded one passes, one about another thing does not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from edgeq.benchmark import measure
from edgeq.errors import AgentProtocolError
from edgeq.fleet.agent.answer_check import check_answer
from edgeq_agent import wire

RECORDED = Path(__file__).parents[1] / "agent" / "wire" / "v1"
OTHER = "f" * 64


def recorded(name: str) -> dict[str, Any]:
    """Return the recorded result of a verb."""
    last = json.loads((RECORDED / f"{name}.jsonl").read_text("utf-8").splitlines()[-1])
    result: dict[str, Any] = last["result"]
    return result


def asked(verb: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request that a recorded result answers."""
    repeated = {name: result[name] for name in ("model", "release", "digest", "dry_run") if name in result}
    return {
        "activate": repeated,
        "stage": repeated,
        "unstage": repeated,
        "pin": repeated,
        "unpin": repeated,
        "runtime": repeated,
        "prune": repeated,
        "soak": {"model": result.get("model")},
        "infer": {"model": result.get("model")},
        "bench": {"model": result.get("model"), "threads": result.get("threads")},
        "rollback": {"model": result.get("model"), "from": result.get("previous")},
        "missing": {"blobs": dict.fromkeys(result.get("missing", ()), 1)},
        "upload": {"blobs": [{"sha256": "5ed44f14062e00b68ad665d16cfeaaee4996d24391a579bab941f1838ab962c9"}]},
        "split": {"model": result.get("model"), "experiment": "tiny-1"},
        "telemetry": {"ack": None, "limit": 1},
    }[verb]


CASES: list[tuple[str, str, Any]] = [
    *((verb, "model", "other") for verb in (
        "activate", "stage", "unstage", "pin", "unpin", "soak", "infer", "bench", "rollback", "split",
    )),
    *((verb, "release", OTHER) for verb in ("activate", "stage", "unstage", "pin", "unpin")),
    *((verb, "model", ["tiny"]) for verb in ("infer", "bench")),
    ("runtime", "digest", OTHER),
    ("prune", "dry_run", False),
    ("prune", "dry_run", 1),
    ("bench", "threads", 7),
    ("rollback", "previous", OTHER),
    ("missing", "missing", [OTHER]),
    ("missing", "begun", [OTHER]),
    ("missing", "missing", [{}]),
    ("upload", "blobs", [{"sha256": OTHER, "stored": True}]),
    ("upload", "blobs", []),
    ("split", "split", {"experiment": "another"}),
    ("telemetry", "sent", 2),
]  # fmt: skip


@pytest.mark.parametrize("verb", sorted({verb for verb, _, _ in CASES}))
def test_the_recorded_response_answers_its_request(verb: str) -> None:
    result = recorded(verb)
    check_answer(verb, asked(verb, result), result, device="pi")


@pytest.mark.parametrize(("verb", "field", "value"), CASES)
def test_a_response_about_another_thing_is_refused(verb: str, field: str, value: Any) -> None:
    result = recorded(verb)
    request = asked(verb, result)
    with pytest.raises(AgentProtocolError, match=f"pi: {verb}: {field}"):
        check_answer(verb, request, {**result, field: value}, device="pi")


def test_a_verb_that_names_what_it_is_about_is_checked() -> None:
    for path in RECORDED.glob("*.jsonl"):
        verb = path.stem
        if verb == "probe":
            continue  # its `release` is the kernel's
        if verb in wire.VERBS and {"model", "release", "digest"} & recorded(verb).keys():
            assert verb in {case[0] for case in CASES}, verb


def test_figures_of_another_model_are_not_recorded_under_this_name() -> None:
    class Lying:
        def call(self, verb: str, request: Mapping[str, Any], *, deadline_s: float = 60) -> Mapping[str, Any]:
            return {**recorded("bench"), "model": "other"}

    with pytest.raises(AgentProtocolError, match="bench: model is not what was asked for, expected digits"):
        measure(Lying(), "digits", device="pi")
