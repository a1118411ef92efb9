"""Responses of the agent: each field is checked, and a wrong one is a protocol error that names it."""

from __future__ import annotations

import importlib
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import ValidationError

import edgeq
from edgeq.benchmark.native import native_summary, parse_native
from edgeq.cli.device_service import lines as service_lines
from edgeq.errors import AgentProtocolError
from edgeq.fleet import autostart, responses
from edgeq.fleet.agent.client import AgentClient
from edgeq.fleet.agent.combined_bootstrap import read_placement
from edgeq.fleet.agent.file import build_agent
from edgeq.fleet.facts import AutostartFact, Facts
from edgeq.fleet.operations import Pruned
from edgeq.values import Device
from edgeq_agent import wire

A, B = "a" * 64, "b" * 64


EDGEQ = Path(edgeq.__file__).parent
WIRE = Path(__file__).parents[1] / "agent" / "wire" / "v1"
# The host only needs to know that they succeeded, or does not call them.
NOT_READ = {"put", "runtime", "soak", "recover"}
# The first agents did not report `begun`, and the recorded device has no boot service.
NOT_RECORDED = {"missing": responses.MissingBlobs, "service": AutostartFact}


def kinds(base: type[responses.Response]) -> Iterator[type[responses.Response]]:
    """Yield the classes below a class that name verbs of their own."""
    for kind in base.__subclasses__():
        if "verbs" in vars(kind):
            yield kind
        yield from kinds(kind)


def messages(name: str) -> list[dict[str, Any]]:
    """Return the messages of a recording."""
    return [json.loads(line) for line in (WIRE / f"{name}.jsonl").read_text().splitlines()]


for path in EDGEQ.rglob("*.py"):
    if re.search(r"^    verbs = ", path.read_text("utf-8"), re.MULTILINE):
        importlib.import_module(".".join(path.relative_to(EDGEQ.parent).with_suffix("").parts))
KINDS = {
    (verb, kind)
    for kind in kinds(responses.Response)
    if kind.__module__.startswith("edgeq.")
    for verb in kind.verbs
}
RECORDED = [
    (path.stem, kind)
    for path in sorted(WIRE.glob("*.jsonl"))
    for verb, kind in sorted(KINDS, key=str)
    if path.stem.partition("-")[0] == verb
    and NOT_RECORDED.get(verb) is not kind
    and messages(path.stem)[-1]["event"] == "result"
]


def refused(kind: type[responses.Response], body: dict[str, Any], verb: str) -> str:
    """Return the message with which a body is refused."""
    with pytest.raises(AgentProtocolError) as caught:
        responses.parse(kind, body, device="pi", verb=verb)
    return caught.value.message


def test_every_verb_that_the_host_reads_has_a_class_and_a_recorded_response() -> None:
    assert {verb for verb, _ in KINDS} == set(wire.VERBS) - NOT_READ
    assert {name.partition("-")[0] for name, _ in RECORDED} == set(wire.VERBS) - NOT_READ - {"missing"}


@pytest.mark.parametrize(("name", "kind"), RECORDED)
def test_responses_of_the_first_protocol_are_read_and_kept_whole(
    name: str, kind: type[responses.Response]
) -> None:
    result = messages(name)[-1]["result"]
    for body in (result, {**result, "a later field": {"x": 1}}):
        assert responses.parse(kind, body, device="pi", verb=name).document == body


@pytest.mark.parametrize(("verb", "kind"), sorted(KINDS, key=str))
def test_a_response_without_a_field_that_is_read_names_it(verb: str, kind: type[responses.Response]) -> None:
    required = [
        field.validation_alias or key for key, field in kind.model_fields.items() if field.is_required()
    ]
    assert refused(kind, {}, verb) == f"pi: {verb}: {required[0]}, expected a value, got nothing"


def test_a_response_is_not_read_as_that_of_another_verb() -> None:
    class Unused:
        """A transport that must not be used."""

    client = AgentClient(
        Device(name="pi", host="pi", user="u", host_key="k"), cast("Any", Unused()), timeout_s=1
    )
    with pytest.raises(ValueError, match="Pruned is not a response of the verb 'pin'"):
        client.request(Pruned, "pin", {})


def test_a_response_cannot_be_changed() -> None:
    status = responses.parse(responses.DeviceStatus, STATUS, device="pi", verb="status")
    with pytest.raises(ValidationError, match="frozen"):
        status.free_bytes = 7


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"missing": [A]}, "begun, expected a value, got nothing"),
        ({"missing": A, "begun": []}, "missing, expected a list, got 'aaaa"),
        ({"missing": [A], "begun": None}, "begun, expected a list, got None"),
        ({"missing": [A], "begun": [["x"]]}, "begun.0, expected a string, got ['x']"),
        ({"missing": ["../x"], "begun": []}, "missing.0, expected a SHA-256 digest, got '../x'"),
    ],
)
def test_missing_blobs(body: dict[str, Any], problem: str) -> None:
    good = {"missing": [A, B], "begun": [B], "free_bytes": 1}
    blobs = responses.parse(responses.MissingBlobs, good, device="pi", verb="missing")
    assert (blobs.missing, blobs.partial) == ((A, B), (B,))
    assert f"pi: missing: {problem}" in refused(responses.MissingBlobs, body, "missing")


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
        ({"models": ["m"]}, "models"),
        ({"models": {"m": []}}, "models.m"),
        ({"models": {"m": "x"}}, "models.m"),
        ({"models": {"m": {"current": 7}}}, "models.m.current"),
        ({"models": {"m": {"current": "../../x"}}}, "models.m.current"),
        ({"models": {"m": {"current": A, "staged": 7}}}, "models.m.staged"),
        ({"models": {"m": {"since_ns": "now"}}}, "models.m.since_ns"),
        ({"models": {"m": {"since_ns": 10**40}}}, "models.m.since_ns"),
        ({"models": {"m": {"pins": "p"}}}, "models.m.pins"),
        ({"free_bytes": "much"}, "free_bytes"),
        ({"free_bytes": True}, "free_bytes"),
        ({"trust": 5}, "trust"),
        ({"trust": {}}, "trust.keys"),
        ({"trust": {**TRUST, "keys": 5}}, "trust.keys"),
        ({"trust": {**TRUST, "threshold": "x"}}, "trust.threshold"),
        ({"trust": {**TRUST, "counters": {"m": {"counter": "x", "release": A}}}}, "trust.counters.m.counter"),
        ({"trust": {**TRUST, "counters": {"m": 1}}}, "trust.counters.m"),
    ],
)
def test_a_status_with_a_wrong_field_names_it(change: dict[str, Any], field: str) -> None:
    damaged = {**TRUST, "keys": [], "counters": {}, "problem": "cannot be read"}
    bodies: list[dict[str, Any]] = [STATUS, {**STATUS, "trust": damaged}, {"models": {}}]
    for body in bodies:
        assert responses.parse(responses.DeviceStatus, body, device="pi", verb="status").document is not None
    assert refused(responses.DeviceStatus, {**STATUS, **change}, "status").startswith(
        f"pi: status: {field}, expected "
    )


def test_a_model_that_the_device_does_not_know_has_an_empty_status() -> None:
    status = responses.parse(responses.DeviceStatus, STATUS, device="pi", verb="status")
    assert status.model("m").current == A
    assert status.model("other") == responses.ModelStatus()


PROBED: dict[str, Any] = {
    "python": "3.11.2",
    "implementation": "cpython",
    "machine": "aarch64",
    "system": "Linux",
    "pointer_bits": 64,
    "free_bytes": 1,
    "device_id": "0",
    "service": {"kind": "plain", "models": [], "whole": True, "last": None, "seen_at_boot": False}
    | {"ran_in_this_boot": False},
    "edgetpu": {"library": None, "loads": False, "problem": "there is none", "devices": ["/dev/apex_0"]},
}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"service": 5}, "service"),
        ({"service": {**PROBED["service"], "whole": None}}, "service.whole"),
        ({"service": {**PROBED["service"], "ran_in_this_boot": True}}, "service"),
        ({"service": {**PROBED["service"], "last": {"ok": True}}}, "service.last.problem"),
        ({"edgetpu": ["x"]}, "edgetpu"),
        ({"edgetpu": {**PROBED["edgetpu"], "devices": 3}}, "edgetpu.devices"),
        ({"edgetpu": {**PROBED["edgetpu"], "problem": None}}, "edgetpu"),
    ],
)
def test_facts_that_only_the_doctor_reads(change: dict[str, Any], field: str) -> None:
    assert Facts.from_probe("pi", PROBED).edgetpu is not None
    assert refused(Facts, {**PROBED, **change}, "probe").startswith(f"pi: probe: {field}, expected ")


@pytest.mark.parametrize("body", [{}, {"changed": 1}, {"changed": None}])
def test_whether_something_changed(body: dict[str, Any]) -> None:
    assert responses.parse(responses.Change, {"changed": True}, device="pi", verb="split").changed
    assert refused(responses.Change, body, "split").startswith("pi: split: changed, expected ")


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
def test_lines_that_are_not_the_scripts_own_are_skipped(line: bytes) -> None:
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
def test_a_boot_service_with_a_wrong_field_names_it(change: dict[str, Any], field: str) -> None:
    off = {"enabled": False, "choice": "plain", "kind": None, "at_boot": False, "why": "x"}
    for body in (SERVICE, {**SERVICE, "last": None, "serving": None}, {**off, "models": [], "units": []}):
        assert service_lines(responses.parse(autostart.Autostart, body, device="pi", verb="service"))
    message = refused(autostart.Autostart, {**SERVICE, **change}, "service")
    assert message.startswith(f"pi: service: {field}")


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
def test_a_native_benchmark_with_a_wrong_field_names_it(change: dict[str, Any], field: str) -> None:
    assert native_summary(parse_native(NATIVE, device="pi"))
    with pytest.raises(AgentProtocolError, match=f"pi: bench: {field}, expected"):
        parse_native({**NATIVE, **change}, device="pi")
