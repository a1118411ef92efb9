"""What a device may say in its answers: each is checked, and what is none is a protocol error in a line."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from edgeq.benchmark.native import native_summary, parse_native
from edgeq.cli.device_service import lines as service_lines
from edgeq.errors import AgentProtocolError
from edgeq.fleet import autostart, responses
from edgeq.fleet.agent.combined_bootstrap import read_placement
from edgeq.fleet.agent.file import build_agent
from edgeq_agent import wire

A, B = "a" * 64, "b" * 64


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"missing": [A]},
        {"missing": A, "begun": []},
        {"missing": [A], "begun": None},
        {"missing": [A], "begun": [["x"]]},
        {"missing": ["../x"], "begun": []},
    ],
)
def test_what_a_device_lacks(answer: dict[str, Any]) -> None:
    good = responses.lacking("pi", {"missing": [A, B], "begun": [B], "free_bytes": 1})
    assert (good.missing, good.begun) == ((A, B), (B,))
    with pytest.raises(AgentProtocolError, match=r"pi: missing: (missing|begun), expected a list of digests"):
        responses.lacking("pi", answer)


@pytest.mark.parametrize(
    ("status", "field"),
    [
        ({}, "models"),
        ({"models": ["m"]}, "models"),
        ({"models": {"m": "x"}}, "m"),
        ({"models": {"m": {"current": 7}}}, "current"),
        ({"models": {"m": {"current": "../../x"}}}, "current"),
        ({"models": {"m": {"current": A, "staged": 7}}}, "staged"),
    ],
)
def test_what_a_device_says_of_a_model(status: dict[str, Any], field: str) -> None:
    assert responses.model_in("pi", {"models": {}}, "m") == {}
    assert responses.model_in("pi", {"models": {"m": {"current": A}}}, "m") == {"current": A}
    with pytest.raises(AgentProtocolError, match=f"^pi: status: .*{field}"):
        responses.model_in("pi", status, "m")


TRUST: dict[str, Any] = {
    "keys": ["k"],
    "revoked": [],
    "threshold": 1,
    "counters": {"m": {"counter": 3, "release": A}},
    "problem": None,
}
STATUS: dict[str, Any] = {
    "models": {"m": {"current": A, "since_ns": 1, "staged": {}}},
    "trust": TRUST,
    "free_bytes": 5,
}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"models": None}, "models"),
        ({"models": {"m": []}}, "m"),
        ({"models": {"m": {"since_ns": "now"}}}, "m: since_ns"),
        ({"models": {"m": {"since_ns": 10**40}}}, "m: since_ns"),
        ({"free_bytes": "much"}, "free_bytes"),
        ({"trust": 5}, "trust"),
        ({"trust": {}}, "trust"),
        ({"trust": {**TRUST, "keys": 5}}, "trust"),
        ({"trust": {**TRUST, "threshold": "x"}}, "trust"),
        ({"trust": {**TRUST, "counters": {"m": {"counter": "x", "release": A}}}}, "trust"),
        ({"trust": {**TRUST, "counters": {"m": 1}}}, "trust"),
    ],
)
def test_a_status_that_is_none(change: dict[str, Any], field: str) -> None:
    damaged = {**TRUST, "keys": [], "counters": {}, "problem": "cannot be read"}
    answers: list[dict[str, Any]] = [STATUS, {**STATUS, "trust": damaged}, {"models": {}}]
    for answer in answers:
        assert responses.status_of("pi", answer) is answer
    with pytest.raises(AgentProtocolError, match=f"pi: status: {field}, expected"):
        responses.status_of("pi", {**STATUS, **change})


PROBED: dict[str, Any] = {
    "service": {"kind": "plain", "models": [], "whole": True, "last": None, "seen_at_boot": False}
    | {"ran_in_this_boot": False},
    "edgetpu": {"library": None, "loads": False, "problem": "there is none", "devices": ["/dev/apex_0"]},
}


@pytest.mark.parametrize(
    "change",
    [
        {"service": 5},
        {"service": {**PROBED["service"], "whole": None}},
        {"service": {**PROBED["service"], "ran_in_this_boot": True}},
        {"service": {**PROBED["service"], "last": {"ok": True}}},
        {"edgetpu": ["x"]},
        {"edgetpu": {**PROBED["edgetpu"], "devices": 3}},
        {"edgetpu": {**PROBED["edgetpu"], "problem": None}},
    ],
)
def test_what_only_the_doctor_reads(change: dict[str, Any]) -> None:
    assert responses.facts_problem({}) is None
    assert responses.facts_problem(PROBED) is None
    (field,) = change
    assert str(responses.facts_problem({**PROBED, **change})).startswith(f"{field}: ")


@pytest.mark.parametrize("answer", [{}, {"changed": 1}, {"changed": None}])
def test_whether_something_changed(answer: dict[str, Any]) -> None:
    assert responses.changed("pi", "split", {"changed": True})
    with pytest.raises(AgentProtocolError, match="pi: split: changed, expected true or false"):
        responses.changed("pi", "split", answer)


@pytest.mark.parametrize(
    "line",
    [
        b'{"edgeq": 1}',
        b'{"edgeq": 1, "python": null, "home": "/x"}',
        b'{"edgeq": 1, "python": ["3", 8], "home": "/x"}',
        b'{"edgeq": 1, "python": [3], "home": "/x"}',
        b'{"edgeq": 1, "python": [3, 11, 2], "home": 5}',
        b"[" * 100_000,
    ],
)
def test_lines_that_are_not_the_first_calls_are_noise(line: bytes) -> None:
    agent = build_agent()
    assert read_placement(iter([line]), agent) is None
    real = json.dumps({"edgeq": 1, "python": [3, 11, 2], "home": "/x", "sha256": agent.sha256}).encode()
    placed = read_placement(iter([line, real]), agent)
    assert placed is not None
    assert (placed.home, placed.python) == ("/x", "3.11.2")


SERVICE: dict[str, Any] = {
    "enabled": True,
    "choice": "plain",
    "kind": "plain",
    "at_boot": None,
    "why": "only a restart shows it",
    "models": ["m"],
    "units": [{"unit": "e", "active": "a", "sub": "s", "result": "r", "restarts": 0, "problem": ""}],
    "serving": {"problem": "x"},
    "ran_in_this_boot": True,
    "last": {
        "ok": True,
        "problem": "",
        "since_boot_s": 1.5,
        "models": {"m": {"state": "s", "changed": True}},
    },
}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"enabled": 1}, "enabled"),
        ({"choice": None}, "choice"),
        ({"at_boot": "yes"}, "at_boot"),
        ({"why": 7}, "why"),
        ({"models": "m"}, "models"),
        ({"models": [["m"]]}, "models"),
        ({"units": [{"unit": "e"}]}, "units"),
        ({"units": 5}, "units"),
        ({"serving": []}, "serving"),
        ({"last": {}}, "last"),
        ({"last": {**SERVICE["last"], "since_boot_s": "soon"}}, "last"),
        ({"last": {**SERVICE["last"], "models": {"m": 1}}}, "last"),
        ({"last": {**SERVICE["last"], "models": {"m": {"changed": True}}}}, "last"),
    ],
)
def test_a_service_answer_with_a_wrong_field_is_a_protocol_error(change: dict[str, Any], field: str) -> None:
    off = {"enabled": False, "choice": "plain", "kind": None, "at_boot": False, "why": "x"}
    for answer in (SERVICE, {**SERVICE, "last": None, "serving": None}, {**off, "models": [], "units": []}):
        assert service_lines(autostart.checked("pi", answer))
    with pytest.raises(AgentProtocolError, match=f"pi: service: {field}"):
        autostart.checked("pi", {**SERVICE, **change})


NATIVE: dict[str, Any] = {
    "schema": wire.NATIVE_BENCH_SCHEMA,
    "latency_ns": {"count": 9, "min": 1, "mean": 2, "max": 3, "p95": None},
    "init_ns": 5,
    "first_inference_ns": 6,
    "threads": 1,
}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"latency_ns": {**NATIVE["latency_ns"], "p95": "soon"}}, "latency_ns.p95"),
        ({"latency_ns": {**NATIVE["latency_ns"], "max": math.nan}}, "latency_ns.max"),
        ({"init_ns": math.inf}, "init_ns"),
        ({"init_ns": 10**400}, "init_ns"),
        ({"memory": []}, "memory"),
        ({"memory": {"peak_bytes": "much"}}, "memory.peak_bytes"),
        ({"warnings": 5}, "warnings"),
    ],
)
def test_figures_of_the_native_program(change: dict[str, Any], field: str) -> None:
    assert native_summary(parse_native(NATIVE, device="pi"))
    with pytest.raises(AgentProtocolError, match=f"pi: bench: {field}, expected"):
        parse_native({**NATIVE, **change}, device="pi")
