"""The agent's client against an agent that misbehaves: a real connection, a scripted interpreter there."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeq.errors import (
    AgentProtocolError,
    DeviceError,
    DeviceOutOfSpace,
    DeviceTimeout,
    DeviceUnsupported,
    EdgeqError,
    HealthCheckFailed,
)
from edgeq.fleet.agent.client import AgentClient
from edgeq.fleet.connect import open_agent
from edgeq.fleet.facts import Facts
from edgeq_agent import wire
from tests.fleet.servers import Server

HELLO = wire.dump(wire.hello("9.9"))
RESULT = wire.dump(wire.result({"fine": True}))

Scripted = Callable[[str], contextlib.AbstractContextManager[AgentClient]]


@pytest.fixture
def scripted(loopback_server: Server, tmp_path: Path) -> Scripted:
    """A function that opens a device whose interpreter runs a shell script in the agent's place."""

    @contextlib.contextmanager
    def opened(script: str) -> Iterator[AgentClient]:
        python = tmp_path / "python3"
        # `python3 -c` is the bootstrap, which stays what it is.
        python.write_text(f'#!/bin/sh\nif [ "$1" = -c ]; then exec python3 "$@"; fi\n{script}\n')
        python.chmod(0o755)
        device = dataclasses.replace(loopback_server.device(), python=str(python))
        with open_agent(device, timeout_s=10) as client:
            yield client

    return opened


def says(*lines: bytes, status: int = 0) -> str:
    text = b"".join(lines).decode().replace("'", "'\\''")
    return f"printf '%s' '{text}'; exit {status}"


def test_unknown_events_and_fields_are_passed_over(scripted: Scripted) -> None:
    seen: list[Any] = []
    extra = wire.dump({"event": "from-the-future", "x": 1})
    with scripted(says(HELLO, extra, wire.dump(wire.progress("step")), RESULT)) as client:
        assert client.call("status", {}, on_event=seen.append) == {"fine": True}
    assert [(message.event, message.step) for message in seen] == [
        ("from-the-future", ""),
        ("progress", "step"),
    ]


def test_what_the_device_repaired_is_a_warning(scripted: Scripted, caplog: pytest.LogCaptureFixture) -> None:
    damage = {"file": "outbox.db", "problem": "is damaged", "lost": "3 windows\x1b[31m", "kept_as": "x"}
    with scripted(says(HELLO, wire.dump(wire.progress("damaged", **damage)), RESULT)) as client:
        client.call("status", {})
        name = client.device.name
    expected = f"warning: {name}: outbox.db on the device is damaged; kept as x; 3 windows?[31m"
    assert [each.getMessage() for each in caplog.records if each.name == "edgeq.device"] == [expected]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (says(b"junk\n"), "ended without a response"),
        (says(HELLO, b"junk\n"), "not a JSON line"),
        (says(RESULT), "begins with 'result' instead of a hello"),
        (says(wire.dump({"event": "hello", "protocol": 99})), "protocol 99; this side uses 1"),
        (says(HELLO, RESULT, RESULT), "output after the result"),
        (says(HELLO, wire.dump({"event": "result", "result": [1]})), "not a JSON object"),
        (says(HELLO, b'{"event":"result","result":{"x":NaN}}\n'), "not a JSON line"),
        (says(HELLO, b'{"event":"result","result":{"x":1e999}}\n'), "not a JSON line"),
        (says(HELLO, b"[" * 50_000), "not a JSON line"),
        (says(HELLO), "ended without a response: exit status 0"),
        ("echo 'MemoryError: no room' >&2; exit 1", "ended without a response: MemoryError: no room"),
        ("yes", "not a JSON line"),
    ],
)
def test_an_invalid_answer_is_a_protocol_error(scripted: Scripted, script: str, message: str) -> None:
    with scripted(script) as client, pytest.raises(AgentProtocolError, match="pi: status") as caught:
        client.call("status", {})
    assert message in caught.value.message


def _nested(depth: int) -> bytes:
    return b'{"event":"result","result":{"x":' + b"[" * depth + b"]" * depth + b"}}\n"


@pytest.mark.parametrize("depth", [63, 900])
def test_an_answer_nested_too_deep_is_a_protocol_error(scripted: Scripted, depth: int) -> None:
    with scripted(says(HELLO, _nested(depth))) as client, pytest.raises(AgentProtocolError) as caught:
        client.call("status", {})
    assert "nested deeper than 64 levels" in caught.value.message


def test_brackets_in_texts_and_side_by_side_are_not_depth(scripted: Scripted) -> None:
    text = "[" * 500 + '\\"{{' + "\\\\"
    wide = wire.dump(wire.result({text: [[] for _ in range(500)], "deep": json.loads("[" * 60 + "]" * 60)}))
    with scripted(says(HELLO, wide)) as client:
        assert len(client.call("status", {})[text]) == 500


@pytest.mark.parametrize(
    ("verb", "loop", "message"),
    [
        ("status", f'yes \'{{"event":"progress","x":"{"x" * 200}"}}\'', "longer than 4.0 MiB"),
        ("status", 'while :; do echo \'{"event":"progress"}\'; done', "more than 100000 messages"),
        ("status", "tr '\\\\0' x </dev/zero", "longer than 4.0 MiB"),
        ("telemetry", f'yes \'{{"event":"window","window":"{"x" * 2000}"}}\'', "longer than 32.0 MiB"),
    ],
    ids=["bytes", "messages", "one line", "windows"],
)
@pytest.mark.first_is_quick
def test_an_answer_without_end_is_ended(scripted: Scripted, verb: str, loop: str, message: str) -> None:
    hello = HELLO.decode().strip()
    with (
        scripted(f"echo '{hello}'; {loop}") as client,
        pytest.raises(AgentProtocolError, match=message),
    ):
        client.call(verb, {})


def test_a_bootstrap_without_end_is_ended(loopback_server: Server, tmp_path: Path) -> None:
    python = tmp_path / "chatty"
    python.write_text("#!/bin/sh\nexec yes welcome\n")
    python.chmod(0o755)
    device = dataclasses.replace(loopback_server.device(), python=str(python))
    with open_agent(device) as client, pytest.raises(AgentProtocolError, match=r"pi: its answer is longer"):
        client.facts()


def test_an_answer_about_another_model_is_a_protocol_error(scripted: Scripted) -> None:
    answer = wire.dump(wire.result({"model": "other"}))
    with scripted(says(HELLO, answer)) as client, pytest.raises(AgentProtocolError, match="pi: infer: model"):
        client.call("infer", {"model": "digits"})


def test_an_interpreter_that_is_gone_by_now(scripted: Scripted) -> None:
    with scripted("exec no-such-program") as client, pytest.raises(DeviceUnsupported, match="not found"):
        client.call("status", {})


def test_a_deadline_that_passes_names_the_verb(scripted: Scripted) -> None:
    hello = HELLO.decode().strip()
    with scripted(f"echo '{hello}'; sleep 60") as client, pytest.raises(DeviceTimeout, match="pi: bench: no"):
        client.call("bench", {}, deadline_s=0.5)


@pytest.mark.parametrize(
    ("code", "kind", "transient"),
    [
        ("EQ501", DeviceOutOfSpace, False),
        ("EQ503", DeviceUnsupported, False),
        ("EQ504", HealthCheckFailed, False),
        ("EQ505", DeviceError, False),
        ("EQ508", DeviceError, True),
        ("EQ590", DeviceError, False),
        ("EQ599", DeviceError, False),
    ],
)
def test_the_agents_errors_are_ours(
    scripted: Scripted, code: str, kind: type[EdgeqError], transient: bool
) -> None:
    error = wire.error(code, "kws", "is wrong", expected="this", got="that", hint="do it")
    with scripted(says(HELLO, wire.dump(error), status=1)) as client, pytest.raises(kind) as caught:
        client.call("status", {})
    assert caught.value.to_dict() == {
        "code": code,
        "message": "pi: kws: is wrong, expected this, got that",
        "subject": "pi: kws",
        "expected": "this",
        "got": "that",
        "hint": "do it",
        "transient": transient,
        "exit_status": 1,
    }


def test_a_verb_that_is_none_is_our_own_mistake(scripted: Scripted) -> None:
    with scripted("exit 0") as client, pytest.raises(ValueError, match="unknown verb"):
        client.call("; rm -rf /", {})


@pytest.mark.parametrize(
    ("interpreter", "message"),
    [
        ("no-such-python", "no-such-python does not run"),
        ("false", "false does not run: exit status 1"),
    ],
)
def test_a_device_without_python(loopback_server: Server, interpreter: str, message: str) -> None:
    device = dataclasses.replace(loopback_server.device(), python=interpreter)
    with open_agent(device) as client, pytest.raises(DeviceUnsupported, match=message) as caught:
        client.facts()
    assert "3.7" in str(caught.value.hint)


def test_a_python_that_is_too_old_says_which(loopback_server: Server, tmp_path: Path) -> None:
    old = tmp_path / "python2"
    answer = json.dumps({"edgeq": 1, "python": [2, 7, 18], "home": "/h", "sha256": None})
    old.write_text(f"#!/bin/sh\necho '{answer}'\n")
    old.chmod(0o755)
    device = dataclasses.replace(loopback_server.device(), python=str(old))
    with open_agent(device) as client, pytest.raises(DeviceUnsupported, match=r"2\.7\.18"):
        client.facts()


def test_a_home_that_cannot_be_written_to(loopback_server: Server) -> None:
    device = dataclasses.replace(loopback_server.device(), home="/proc/edgeq")
    with open_agent(device) as client, pytest.raises(DeviceUnsupported, match="cannot be installed"):
        client.facts()


@pytest.mark.parametrize(
    "change",
    [{"python": None}, {"python": "x"}, {"free_bytes": "many"}, {"device_id": ...}, {"libc": "glibc"}],
)
def test_facts_that_cannot_be_read(change: dict[str, Any]) -> None:
    probe = {
        "python": "3.11.2",
        "implementation": "cpython",
        "machine": "aarch64",
        "system": "Linux",
        "libc": None,
        "pointer_bits": 64,
        "free_bytes": 1,
        "device_id": "0",
    }
    assert Facts.from_probe("pi", probe).libc == ""
    broken = {key: value for key, value in {**probe, **change}.items() if value is not ...}
    with pytest.raises(AgentProtocolError, match="pi: probe: "):
        Facts.from_probe("pi", broken)
