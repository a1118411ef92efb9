"""The wire format of version 1: recorded answers stay readable, and the agent still answers like them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from edgeq_agent import wire

FIXTURES = sorted((Path(__file__).parent / "wire" / "v1").glob("*.jsonl"))


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_a_recorded_answer_is_read(path: Path) -> None:
    lines = list(wire.split_lines([path.read_bytes()]))
    messages = [wire.parse(line) for line in lines]
    wire.check_hello(messages[0])
    last = [message for message in messages if message["event"] in ("result", "error")]
    assert last == messages[-1:]
    for line, message in zip(lines, messages, strict=True):
        assert wire.dump(message) == line + b"\n"
    if messages[-1]["event"] == "error":
        assert set(messages[-1]["error"]) >= {
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


def _shape(value: Any) -> Any:
    """Return the keys of a result, nested; what is empty or of open keys is not looked into."""
    if isinstance(value, dict):
        return {name: _shape(inner) for name, inner in value.items() if inner not in (None, {}, [])}
    return None


def _holds(recorded: Any, live: Any, where: str = "result") -> None:
    for name, inner in (recorded or {}).items():
        if name in ("counts", "errors", "absent", "models", "kept", "staged"):
            continue
        assert name in live, f"{where}.{name} is gone from the answer"
        if inner and live[name]:
            _holds(inner, live[name], f"{where}.{name}")


@pytest.mark.convert
def test_the_agent_answers_as_recorded(serving: Any, float_bundle: Any, tiny_data: Any, kit: Any) -> None:
    """A key of a response of version 1 stays; new keys may be added."""
    live = {
        "probe": serving.call("probe"),
        "missing": serving.call("missing", blobs={"0" * 64: 1}),
        "put": serving.call("put", b"", sha256=hashlib.sha256(b"").hexdigest(), size_bytes=0),
        "runtime": serving.call("runtime", digest=kit.RUNTIME, wheels=[], modules=["ai_edge_litert"]),
        "infer": serving.call("infer", kit.npz(input_0=tiny_data[:3]), model="tiny", outputs=True),
        "bench": serving.call("bench", model="tiny", runs=5, min_seconds=0.01),
        "status": serving.call("status"),
        "telemetry": serving.call("telemetry"),
        "trust": serving.call("trust"),
        "service": serving.call("service"),
    }
    float_bundle.send(serving)
    live["stage"] = serving.call("stage", **float_bundle.request())
    arm = {"name": "b", "release": float_bundle.release, "weight": 1}
    live["split"] = serving.call(
        "split", model="tiny", arms=[arm], salt="s", experiment="tiny-1", draw="calls"
    )
    assert serving.call("split", model="tiny", clear=True).result["changed"]
    live["unstage"] = serving.call("unstage", model="tiny", release=float_bundle.release)
    live["activate"] = serving.call("activate", **float_bundle.request())
    live["rollback"] = serving.call("rollback", model="tiny")
    live["activate-soak"] = serving.call("activate", **float_bundle.request(soak_s=600))
    live["soak"] = serving.call("soak", model="tiny")
    live["recover"] = serving.call("recover")
    live["pin"] = serving.call("pin", model="tiny")
    live["unpin"] = serving.call("unpin", model="tiny")
    serving.put(b"nothing refers to this")
    live["prune"] = serving.call("prune", dry_run=True)
    for verb, answered in live.items():
        recorded = json.loads((FIXTURES[0].parent / f"{verb}.jsonl").read_text().splitlines()[-1])
        _holds(_shape(recorded["result"]), answered.result, verb)
    window = json.loads((FIXTURES[0].parent / "telemetry.jsonl").read_text().splitlines()[1])["window"]
    _holds(_shape(window), live["telemetry"].of("window")[0]["window"], "window")
