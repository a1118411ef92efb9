"""Plans by cases: `golden/*.json` holds what is known and the steps that follow; a new case needs no code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgeq.bundle.manifest import Manifest
from edgeq.cli.deploy_lines import changes
from edgeq.errors import DeviceOutOfSpace, DeviceUnsupported
from edgeq.fleet.facts import AgentFact, Facts
from edgeq.fleet.plan import Action, Component, Plan, plan
from edgeq.fleet.responses import DeviceStatus, parse
from edgeq.fleet.runtimes.wheels import RuntimeFile, RuntimeKind, RuntimeSpec
from edgeq.values import Device, DeviceKind
from edgeq_agent import wire

CASES = sorted((Path(__file__).parent / "golden").glob("*.json"))
AGENT = "9" * 64
# What a plan does not read of a manifest; the cases leave it out.
REST: dict[str, Any] = {
    "created_by": "test",
    "golden": {
        "file": "golden.npz",
        "samples": 1,
        "max_steps": 0,
        "atol": 0,
        "rtol": 0,
        "runtime": {"module": "ai_edge_litert", "version": "2.1.0", "machine": "x86_64"},
    },
    "reference": {"file": "reference.json"},
    "requires": {},
    "limits": {},
}


def made(case: dict[str, Any]) -> Plan:
    facts, runtime = case["facts"], case["runtime"]
    probe = {
        "python": "3.11.2",
        "implementation": "cpython",
        "machine": "aarch64",
        "system": "Linux",
        "libc": {"name": "glibc", "version": "2.36"},
        "pointer_bits": 64,
        "free_bytes": facts["free_bytes"],
        "device_id": "0123",
        "runtimes": [{"digest": digest} for digest in facts["runtimes"]],
    }
    agent = AgentFact(action=facts["agent"], sha256=AGENT, size_bytes=facts.get("agent_size_bytes", 0))
    files = tuple(RuntimeFile(path=Path(wheel["name"]), **wheel) for wheel in runtime["wheels"])
    device = Device(name="pi", host="h", user="u", host_key="k", kind=DeviceKind(case["device_kind"]))
    release = wire.digest(case["manifest"])
    status = json.loads(json.dumps(case["status"]).replace("$release", release))
    return plan(
        Facts.from_probe("pi", probe, agent),
        parse(DeviceStatus, status, device="pi", verb="status"),
        case["missing"],
        Manifest.model_validate({**REST, **case["manifest"]}),
        RuntimeSpec(
            kind=RuntimeKind.WHEELS if files else RuntimeKind.INSTALLED,
            digest=runtime["digest"],
            files=files,
            reason=runtime.get("reason", ""),
        ),
        release=release,
        device=device,
    )


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_the_plan_is_the_recorded_one(path: Path) -> None:
    case = json.loads(path.read_text())
    got = made(case)
    named = {"$release": got.release[:12], "$agent": AGENT[:12]}
    expected = case["expected"]
    steps = [
        (s["action"], s["part"], _filled(s["subject"], named), s["size_bytes"]) for s in expected["steps"]
    ]
    assert [(s.action.value, s.part.value, s.subject, s.size_bytes) for s in got.steps] == steps
    assert got.send_bytes == expected["send_bytes"]
    assert got.is_empty == expected["empty"]
    assert [step.code for step in got.blocked] == expected["blocked"]
    assert all(step.reason for step in got.steps), "each step says why"
    if "reason" in expected:
        assert got.blocked[0].reason == expected["reason"]


def test_there_are_cases() -> None:
    assert len(CASES) >= 12


def test_a_blocked_plan_raises_its_own_error() -> None:
    by_name = {path.stem: json.loads(path.read_text()) for path in CASES}
    with pytest.raises(DeviceOutOfSpace, match="pi: space: needs"):
        made(by_name["no-space"]).check()
    with pytest.raises(DeviceUnsupported, match="made for coral"):
        made(by_name["wrong-kind"]).check()
    made(by_name["first"]).check()


def test_what_is_printed_shows_sign_size_and_reason() -> None:
    case = json.loads((CASES[0].parent / "new-release.json").read_text())
    lines = [step.text for step in made(case).steps]
    assert "+ blob     model.tflite (50.8 KiB): not on the device" in lines
    assert lines[-1].startswith("~ release  kws ")
    assert lines[-1].endswith("replaces 111111111111")


def test_only_what_changes_is_printed_and_the_files_to_send_are_one_line() -> None:
    case = json.loads((CASES[0].parent / "first.json").read_text())
    steps = made(case).steps
    shown = [step.text for step in changes(steps)]
    assert all(not line.startswith("=") for line in shown)
    sent = [step for step in steps if step.part is Component.BLOB and step.action is Action.CREATE]
    assert len(sent) > 1
    assert shown[0].startswith(f"+ blob     {len(sent)} files (")
    assert shown[-1] == steps[-1].text


def _filled(text: str, named: dict[str, str]) -> str:
    for name, value in named.items():
        text = text.replace(name, value)
    return text
