"""Bad requests: every one gets EQ512 (or its own code), one line, and leaves no trace on the device."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest


@pytest.mark.first_is_quick
@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"{",
        b"{\n",
        b"[]\n",
        b"null\n",
        b'"text"\n',
        b'{"model": "kws"}',  # cut: no newline
        b'{"limit": NaN}\n',
        b'{"limit": Infinity}\n',
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
    ],
)
def test_a_malformed_request_line_is_refused(device: Any, line: bytes) -> None:
    answered = device.raw("telemetry", line)
    assert answered.error["code"] == "EQ512"
    assert [event["event"] for event in answered.events] == ["hello", "error"]
    assert not device.home.exists()


@pytest.mark.parametrize("words", [["nothing"], [], ["probe", "extra"], ["probe", "--home"]])
def test_a_wrong_command_line_is_refused(device: Any, words: list[str], tmp_path: Any) -> None:
    import subprocess

    done = subprocess.run(
        [*device.command, *words],
        input=b"{}\n",
        capture_output=True,
        env={**device.environment, "HOME": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 1
    assert json.loads(done.stdout.splitlines()[-1])["error"]["code"] == "EQ512"


SHA = "a" * 64


@pytest.mark.first_is_quick
@pytest.mark.parametrize(
    ("verb", "request_", "subject"),
    [
        ("missing", {}, "blobs"),
        ("missing", {"blobs": []}, "blobs"),
        ("missing", {"blobs": {"../../etc/passwd": 1}}, "blobs"),
        ("missing", {"blobs": {SHA: "1"}}, "blobs." + SHA),
        ("missing", {"blobs": {SHA: -1}}, "blobs." + SHA),
        ("put", {"sha256": "../x", "size_bytes": 1, "payload_bytes": 1}, "sha256"),
        ("put", {"sha256": SHA.upper(), "size_bytes": 1, "payload_bytes": 1}, "sha256"),
        ("put", {"sha256": SHA + "\n", "size_bytes": 1, "payload_bytes": 1}, "sha256"),
        ("put", {"sha256": SHA, "size_bytes": True, "payload_bytes": 1}, "size_bytes"),
        ("put", {"sha256": SHA, "size_bytes": 1}, "payload_bytes"),
        ("put", {"sha256": SHA, "size_bytes": 1, "payload_bytes": 2}, "payload_bytes"),
        ("runtime", {"digest": "short", "wheels": []}, "digest"),
        ("runtime", {"digest": SHA}, "wheels"),
        ("runtime", {"digest": SHA, "wheels": [{"name": "../a.whl", "sha256": SHA}]}, "wheels.name"),
        ("runtime", {"digest": SHA, "wheels": [{"name": "a.zip", "sha256": SHA}]}, "wheels.name"),
        ("runtime", {"digest": SHA, "wheels": [], "modules": ["os"]}, "modules"),
        ("runtime", {"digest": SHA, "wheels": [], "timeout_s": 0}, "timeout_s"),
        ("rollback", {}, "model"),
        ("rollback", {"model": "../../x"}, "model"),
        ("rollback", {"model": "Kws"}, "model"),
        ("rollback", {"model": "a" * 65}, "model"),
        ("rollback", {"model": "kws\n"}, "model"),
        ("infer", {"model": "kws"}, "payload_bytes"),
        ("infer", {"model": "kws", "payload_bytes": 1, "window": 0}, "window"),
        ("bench", {"model": "kws", "runs": "many"}, "runs"),
        ("bench", {"model": "kws", "min_seconds": 9, "timeout_s": 9}, "min_seconds"),
        ("telemetry", {"limit": -1}, "limit"),
        ("telemetry", {"ack": 7}, "ack"),
        ("telemetry", {"ack": {"boot": "x"}}, "ack.seq"),
    ],
)
def test_a_wrong_field_is_refused_by_its_name(
    device: Any, verb: str, request_: dict[str, Any], subject: str
) -> None:
    error = device.call(verb, **request_).error
    assert (error["code"], error["subject"]) == ("EQ512", subject)
    assert error["expected"]


def _manifest(**changes: Any) -> dict[str, Any]:
    entry = {"sha256": SHA, "size_bytes": 1}
    body = {
        "schema": "edgeq.manifest/1",
        "model": "kws",
        "counter": 1,
        "files": {"model.tflite": entry, "golden.npz": entry},
        "golden": {"file": "golden.npz"},
    }
    return {**body, **changes}


@pytest.mark.first_is_quick
@pytest.mark.parametrize(
    "changes",
    [
        {"schema": "edgeq.manifest/2"},
        {"model": "other"},
        {"files": {"../model.tflite": {"sha256": SHA, "size_bytes": 1}}},
        {"files": {"a/model.tflite": {"sha256": SHA, "size_bytes": 1}}},
        {"files": {"manifest.json": {"sha256": SHA, "size_bytes": 1}}},
        {"files": {"model.tflite": {"sha256": "x", "size_bytes": 1}}},
        {
            "files": {
                "a.tflite": {"sha256": SHA, "size_bytes": 1},
                "b.tflite": {"sha256": SHA, "size_bytes": 1},
            }
        },
        {"golden": {"file": "elsewhere.npz"}},
        {"golden": {"file": "golden.npz", "max_steps": -1}},
        {"golden": {"file": "golden.npz", "atol": "big"}},
        {"golden": None},
        {"requires": {"kinds": "coral"}},
        {"requires": []},
        {"limits": {"latency_p95_ns": "fast"}},
        {"counter": 0},
        {"counter": True},
        {"counter": 2**53},
        {"counter": None},
    ],
)
def test_a_manifest_with_a_wrong_field_is_refused(device: Any, changes: dict[str, Any], kit: Any) -> None:
    from edgeq_agent import wire

    device.enrol()
    manifest = _manifest(**changes)
    request = {"model": "kws", "release": wire.digest(manifest), "manifest": manifest, "runtime": SHA}
    request["signatures"] = [kit.signature_of(manifest)]
    assert device.call("activate", **request).error["code"] == "EQ512"
    assert list((device.home / "releases").iterdir()) == []


# The agent with a bug planted into one of its verbs.
BUG = """
from edgeq_agent.__main__ import main
from edgeq_agent.verbs import probe

def broken(call, root="/"):
    raise ZeroDivisionError("planted\\nin two lines")

probe.probe = broken
main()
"""


def test_an_unexpected_exception_is_one_message_and_a_traceback_on_stderr(device: Any, kit: Any) -> None:
    answered = kit.Device(home=device.home, command=(sys.executable, "-c", BUG)).call("probe")
    assert answered.error["code"] == "EQ590"
    assert "\n" not in answered.error["problem"]
    assert "Traceback" in answered.stderr


def test_the_home_comes_from_the_environment_too(device: Any, kit: Any, tmp_path: Any) -> None:
    elsewhere = tmp_path / "elsewhere"
    moved = kit.Device(home=elsewhere, environment={**device.environment, "EDGEQ_HOME": str(elsewhere)})
    import subprocess

    done = subprocess.run(
        [*moved.command, "probe"], input=b"{}\n", capture_output=True, env=moved.environment, check=False
    )
    assert done.returncode == 0
    assert (elsewhere / "device.json").exists()
