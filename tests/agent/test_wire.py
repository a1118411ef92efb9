"""The wire format of version 1: recorded answers stay readable, and the agent still answers like them."""

from __future__ import annotations

import ast
import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeq_agent import wire
from edgeq_agent.http.body import split
from edgeq_agent.http.errors import Refused
from tests.agent.recorded import FOLDER, answers_as_recorded, holds, messages

FIXTURES = sorted(FOLDER.glob("*.jsonl"))


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_a_recorded_answer_is_read(path: Path) -> None:
    lines = list(wire.split_lines([path.read_bytes()]))
    parsed = [wire.parse(line) for line in lines]
    wire.check_hello(parsed[0])
    last = [message for message in parsed if message["event"] in ("result", "error")]
    assert last == parsed[-1:]
    for line, message in zip(lines, parsed, strict=True):
        assert wire.dump(message) == line + b"\n"
    if parsed[-1]["event"] == "error":
        assert set(parsed[-1]["error"]) >= {
            "code",
            "subject",
            "problem",
            "expected",
            "got",
            "hint",
            "transient",
        }


def test_there_is_a_fixture_for_every_verb() -> None:
    assert {path.stem.partition("-")[0] for path in FIXTURES} >= set(wire.VERBS)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_lines_survive_any_chunking(size: int) -> None:
    data = FIXTURES[0].read_bytes()
    chunks = [data[start : start + size] for start in range(0, len(data), size)]
    assert b"\n".join(wire.split_lines(chunks)) + b"\n" == data


@pytest.mark.parametrize("line", [b"", b"[]", b"{}", b'{"event": 1}', b"\xff", b"motd: welcome"])
def test_a_line_that_is_not_a_message_is_refused(line: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.parse(line)


def test_another_protocol_is_refused() -> None:
    with pytest.raises(wire.WireError, match="protocol 2"):
        wire.check_hello({"event": "hello", "protocol": 2})


def compared(folder: Path) -> set[str]:
    """Return the recordings with which the tests in a folder compare a live response."""
    trees = [ast.parse(path.read_text("utf-8")) for path in folder.rglob("test_*.py")]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {
        str(call.args[0].value)
        for call in calls
        if isinstance(call.func, ast.Name)
        and call.func.id == "answers_as_recorded"
        and isinstance(call.args[0], ast.Constant)
    }


@pytest.mark.slow
def test_a_live_response_of_every_verb_is_compared_with_its_recording() -> None:
    names = compared(Path(__file__).parent)
    assert names <= {path.stem for path in FIXTURES}
    assert {name.partition("-")[0] for name in names} == set(wire.VERBS)


def test_a_verb_whose_response_is_not_compared_is_seen(tmp_path: Path) -> None:
    (tmp_path / "test_pin.py").write_text(
        'answers_as_recorded("pin", x)\ncheck("unpin", x)\nother.call("put")'
    )
    assert compared(tmp_path) == {"pin"}


def test_a_key_that_is_gone_is_seen() -> None:
    recorded = {"a": 1, "b": {"c": 2, "d": {}}, "e": None}
    holds(recorded, {"a": 5, "b": {"c": None}, "more": 1}, "put")
    for live in ({"b": {"c": 2}}, {"a": 1, "b": {"more": 1}}):
        with pytest.raises(AssertionError, match="is gone from the answer"):
            holds(recorded, live, "put")


@pytest.mark.convert
def test_the_agent_answers_as_recorded(serving: Any, float_bundle: Any, tiny_data: Any, kit: Any) -> None:
    """A key of a response of version 1 stays; new keys may be added."""
    call = serving.call
    answers_as_recorded("probe", call("probe"))
    answers_as_recorded("missing", call("missing", blobs={"0" * 64: 1}))
    answers_as_recorded("put", call("put", b"", sha256=hashlib.sha256(b"").hexdigest(), size_bytes=0))
    answers_as_recorded("runtime", call("runtime", digest=kit.RUNTIME, wheels=[], modules=["ai_edge_litert"]))
    samples = kit.npz(input_0=tiny_data[:3])
    answers_as_recorded("infer", call("infer", samples, model="tiny", outputs=True))
    answers_as_recorded("bench", call("bench", model="tiny", runs=5, min_seconds=0.01))
    answers_as_recorded("status", call("status"))
    telemetry = call("telemetry")
    answers_as_recorded("telemetry", telemetry)
    window = messages("telemetry")[1]["window"]
    holds(window, telemetry.of("window")[0]["window"], "window")
    answers_as_recorded("trust", call("trust"))
    answers_as_recorded("service", call("service"))
    float_bundle.send(serving)
    answers_as_recorded("stage", call("stage", **float_bundle.request()))
    arm = {"name": "b", "release": float_bundle.release, "weight": 1}
    split = {"arms": [arm], "salt": "s", "experiment": "tiny-1", "draw": "calls"}
    answers_as_recorded("split", call("split", model="tiny", **split))
    assert call("split", model="tiny", clear=True).result["changed"]
    answers_as_recorded("unstage", call("unstage", model="tiny", release=float_bundle.release))
    answers_as_recorded("activate", call("activate", **float_bundle.request()))
    answers_as_recorded("rollback", call("rollback", model="tiny"))
    answers_as_recorded("activate-soak", call("activate", **float_bundle.request(soak_s=600)))
    answers_as_recorded("soak", call("soak", model="tiny"))
    answers_as_recorded("recover", call("recover"))
    answers_as_recorded("pin", call("pin", model="tiny"))
    answers_as_recorded("unpin", call("unpin", model="tiny"))
    serving.put(b"nothing refers to this")
    answers_as_recorded("prune", call("prune", dry_run=True))


def test_a_number_of_many_digits_is_refused_also_by_pythons_that_would_convert_it() -> None:
    body = b'{"event": "x", "id": ' + b"1" * 300_000 + b"}"
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)  # as in Pythons before 2022
    try:
        with pytest.raises(wire.WireError, match="more than 4300 digits"):
            wire.parse(body)
        with pytest.raises(Refused, match="more than 4300 digits"):
            split({}, body)
        assert wire.parse(b'{"event": "x", "id": ' + b"1" * 4000 + b"}")["id"] > 10**3998
    finally:
        sys.set_int_max_str_digits(before)
