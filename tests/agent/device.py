"""A device of its own for each test: a home folder, and the agent as the process that SSH would start."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeq_agent import wire
from tests.agent.publisher import PUBLISHER, change_of

CODE = Path(__file__).resolve().parents[2] / "device_agents"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What one call of the agent wrote."""

    status: int
    events: list[dict[str, Any]]
    stderr: str

    @property
    def last(self) -> dict[str, Any]:
        return self.events[-1]

    @property
    def result(self) -> dict[str, Any]:
        assert self.last["event"] == "result", (self.last, self.stderr)
        assert self.status == 0
        result: dict[str, Any] = self.last["result"]
        return result

    @property
    def error(self) -> dict[str, Any]:
        assert self.last["event"] == "error", self.last
        assert self.status == 1
        error: dict[str, Any] = self.last["error"]
        return error

    def of(self, event: str) -> list[dict[str, Any]]:
        return [message for message in self.events if message["event"] == event]


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A home folder and the command that runs the agent there."""

    home: Path
    command: tuple[str, ...] = (sys.executable, "-m", "edgeq_agent")
    environment: dict[str, str] = field(default_factory=lambda: {**os.environ, "PYTHONPATH": str(CODE)})

    def start(self, verb: str, **extra: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*self.command, verb, "--home", str(self.home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
            **extra,
        )

    def raw(self, verb: str, data: bytes, *, timeout_s: float = 120, **extra: Any) -> Answered:
        with self.start(verb, **extra) as process:
            out, err = process.communicate(data, timeout=timeout_s)
        events = [wire.parse(line) for line in out.splitlines()]
        assert events, err.decode()
        wire.check_hello(events[0])
        return Answered(status=process.returncode, events=events, stderr=err.decode())

    def call(self, verb: str, payload: bytes | None = None, **request: Any) -> Answered:
        if payload is not None:
            request["payload_bytes"] = len(payload)
        return self.raw(verb, json.dumps(request).encode() + b"\n" + (payload or b""))

    def put(self, data: bytes) -> str:
        sha = hashlib.sha256(data).hexdigest()
        self.call("put", data, sha256=sha, size_bytes=len(data)).result  # noqa: B018 - asserts success
        return sha

    def enrol(self) -> None:
        """Let the device trust the tests' publisher, as its enrolment would."""
        assert self.call("trust", change=change_of(PUBLISHER)).result["changed"]

    def current(self, model: str) -> str | None:
        link = self.home / "models" / model / "current"
        return os.readlink(link).rpartition("/")[2] if link.is_symlink() else None
