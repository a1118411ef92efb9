"""`edgeq doctor`: each problem is named with its fix."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeq import doctor
from edgeq.cli import main
from edgeq.errors import Unreachable
from edgeq.fleet.facts import AutostartFact, Facts
from edgeq.fleet.responses import TrustSummary
from edgeq.values import Device

DEVICE = Device(name="pi", host="127.0.0.1", port=1, user="pi", host_key="ssh-ed25519 AAAA")
FACTS = Facts.from_probe(
    "pi",
    {
        "python": "3.11.2",
        "implementation": "cpython",
        "machine": "aarch64",
        "system": "Linux",
        "libc": {"name": "glibc", "version": "2.36"},
        "pointer_bits": 64,
        "free_bytes": 8 * 2**30,
        "memory_bytes": 4 * 2**30,
        "cpu_count": 4,
        "device_id": "d",
        "runtimes": [],
        "measures": {},
        "time_ns": 1_000_000_000_000,
    },
)


def with_part(**part: object) -> Facts:
    return Facts.from_probe("pi", {**FACTS.document, **part})


def health_of(facts: Facts, name: str) -> tuple[str, str | None]:
    checks = doctor.examine_device(DEVICE, lambda _device: facts, now_ns=lambda: 1_000_000_000_000)
    (check,) = (check for check in checks if check.name == name)
    return check.health.value, check.fix


def test_a_healthy_device() -> None:
    assert health_of(FACTS, "reachable") == ("ok", None)
    assert health_of(FACTS, "space") == ("ok", None)
    assert health_of(FACTS, "clock") == ("ok", None)
    assert health_of(FACTS, "runtime")[0] == "warn"


def test_no_space_and_a_wrong_clock_are_warnings_with_a_fix() -> None:
    health, fix = health_of(FACTS.model_copy(update={"free_bytes": 10}), "space")
    assert health == "warn"
    assert fix is not None
    assert "free" in fix
    health, fix = health_of(FACTS.model_copy(update={"time_ns": 0}), "clock")
    assert health == "warn"
    assert fix is not None
    assert "clock" in fix


def test_the_trust_store_is_one_check() -> None:
    trust = {"keys": ["aa", "bb"], "revoked": ["cc"], "threshold": 2, "problem": None}
    counters = {"kws": {"counter": 3, "release": "r"}}

    def check(**changes: object) -> tuple[str, str, str | None]:
        body = {**trust, "counters": counters, **changes}
        (result,) = doctor.examine_trust(DEVICE, TrustSummary.model_validate(body))
        return result.health.value, result.detail, result.fix

    assert check() == ("ok", "trusts 2 of aa, bb, revoked cc; counters: kws 3", None)
    assert check(keys=[])[0] == "warn"
    assert "edgeq keys trust --on pi" in str(check(keys=[])[2])
    assert check(problem="is damaged")[:2] == ("fail", "accepts no release: is damaged")
    assert doctor.examine_trust(DEVICE, None) == []


def test_the_schemes_that_do_not_suit_a_device_are_named_by_its_class(tmp_path: Path) -> None:
    check = doctor.examine_kernels(DEVICE, FACTS, tmp_path)
    assert (check.subject, check.name, check.health.value, check.fix) == ("pi", "kernels", "ok", None)
    assert check.detail.startswith("int16x8 has no optimized kernels: CONV_2D (builtin)")
    assert "described, not measured: LiteRT" in check.detail
    assert "(aarch64, ai_edge_litert" in check.detail
    narrow = doctor.examine_kernels(DEVICE, with_part(pointer_bits=32), tmp_path).detail
    assert "(armv7l, tflite_runtime" in narrow
    assert "float16 weights are widened at load and computed in float32" in narrow
    unknown = doctor.examine_kernels(DEVICE, with_part(machine="riscv64"), tmp_path)
    assert unknown.detail == "not measured on riscv64; run `edgeq devices kernels pi`"
    assert not (tmp_path / ".edgeq").exists(), "a check records nothing"


def test_an_unreachable_device_is_one_failed_check() -> None:
    def unreachable(device: Device) -> Facts:
        raise Unreachable(device.name, "nothing answers", hint="is it on?")

    checks = doctor.examine_device(DEVICE, unreachable)
    assert [(check.name, check.health.value, check.fix) for check in checks] == [
        ("reachable", "fail", "is it on?")
    ]
    assert doctor.worst(checks) is doctor.Health.FAIL


def test_a_missing_extra_names_the_pip_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(doctor.EXTRAS, "no-such-distribution", "convert")
    checks = doctor.examine_host(tmp_path)
    (check,) = (check for check in checks if check.name == "no-such-distribution")
    assert check.health is doctor.Health.WARN
    assert check.fix == "pip install 'edgeq[convert]'"


def test_a_broken_store_is_a_failure_with_status_1(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workspace / ".edgeq").mkdir()
    (workspace / ".edgeq" / "store.db").write_text("not a database, whatever its name says" * 100)
    assert main(["doctor", "--local", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["health"] == "fail"
    (store,) = (check for check in document["checks"] if check["name"] == "store")
    assert store["health"] == "fail"


def test_an_empty_workspace_stays_empty(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    assert list(workspace.iterdir()) == []
    capsys.readouterr()


LAST = {"ok": True, "problem": "", "models": {}}
SERVICE = {
    "kind": "systemd-user",
    "whole": True,
    "last": LAST,
    "seen_at_boot": True,
    "ran_in_this_boot": True,
}


@pytest.mark.parametrize(
    ("service", "health"),
    [
        (SERVICE, "ok"),
        (None, "warn"),
        ({**SERVICE, "ran_in_this_boot": False}, "warn"),
        ({**SERVICE, "whole": False}, "fail"),
        ({**SERVICE, "last": {**LAST, "ok": False, "problem": "a disk that refuses"}}, "fail"),
    ],
)
def test_the_boot_service_has_a_health_and_a_fix(service: dict[str, object] | None, health: str) -> None:
    result, fix = health_of(with_part(service=service), "service")
    assert result == health
    assert (fix is None) is (health == "ok") or "refuses" in str(service)


def test_a_service_that_nothing_starts_at_boot_is_a_warning() -> None:
    service = {**SERVICE, "kind": "plain", "at_boot": False, "why": "this device has no crontab"}
    facts, starts = with_part(service=SERVICE), {DEVICE.name: AutostartFact.model_validate(service)}
    checks = doctor.examine_device(DEVICE, lambda _device: facts, starts=starts)
    (check,) = (check for check in checks if check.name == "service")
    assert check.health.value == "warn"
    assert "nothing starts it at boot: this device has no crontab" in check.detail


@pytest.mark.parametrize(
    ("edgetpu", "health"),
    [
        (
            {
                "library": "/usr/lib/libedgetpu.so.1",
                "loads": True,
                "problem": None,
                "devices": ["/dev/apex_0"],
            },
            "ok",
        ),
        ({"library": "/usr/lib/libedgetpu.so.1", "loads": True, "problem": None, "devices": []}, "warn"),
        ({"library": None, "loads": False, "problem": "there is none", "devices": ["usb 18d1:9302"]}, "warn"),
    ],
)
def test_an_edge_tpu_is_checked_if_the_device_has_a_part_of_it(
    edgetpu: dict[str, object], health: str
) -> None:
    assert health_of(with_part(edgetpu=edgetpu), "edgetpu")[0] == health
    checks = doctor.examine_device(DEVICE, lambda _device: FACTS)
    assert "edgetpu" not in [check.name for check in checks]
