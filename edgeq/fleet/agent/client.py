"""Call the agent on one device: one verb, one response."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from edgeq.errors import AgentProtocolError, DeviceTimeout, ShellHangs
from edgeq.fleet.agent.answer_check import check_answer
from edgeq.fleet.agent.bootstrap import (
    END_S,
    LACKING,
    Placement,
    PlacementAction,
    install_agent,
    no_python,
    other_service,
)
from edgeq.fleet.agent.combined_bootstrap import FLAGS, command, read_placement
from edgeq.fleet.agent.errors import from_agent
from edgeq.fleet.agent.file import build_agent
from edgeq.fleet.agent.framing import Frame
from edgeq.fleet.audit import about, audited, changes, note
from edgeq.fleet.facts import AgentFact, Facts
from edgeq.fleet.responses import R, parse
from edgeq.fleet.transport import Ended, Limits, Transport
from edgeq.values import Device
from edgeq_agent import wire

_log = logging.getLogger("edgeq.device")

Payload = bytes | Path

# Starting Python from a slow card, before the first line.
_HELLO_S = 45.0
# Lines that shell start-up files may print before the agent's first message.
_NOISE_LINES = 64
# The slowest link that is waited for: it bounds the total time of a call with a payload.
_SLOWEST_BYTES_PER_S = 16 * 1024
_CHUNK_BYTES = 256 * 1024
# The largest answers in bytes. Those of `upload` list chunks, those of `infer` and `bench` figures per run.
_ANSWER_BYTES = 4 * 1024 * 1024
_LONG_ANSWER_BYTES = {
    "telemetry": 32 * 1024 * 1024,
    "upload": wire.MAX_LINE_BYTES,
    "infer": wire.MAX_LINE_BYTES,
    "bench": wire.MAX_LINE_BYTES,
}
_MOST_MESSAGES = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentMessage:
    """A message of the agent before its result.

    Attributes:
        event: `progress` or `window`; a newer agent may send others.
        step: of `progress`, what was reached; else empty.
        document: the message as it arrived.
    """

    event: str
    step: str
    document: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> AgentMessage:
        """Return the message in a line that `wire.parse` accepted."""
        step = document.get("step") if document["event"] == "progress" else ""
        return cls(event=document["event"], step=step if isinstance(step, str) else "", document=document)


OnEvent = Callable[[AgentMessage], None]


class Stream(Protocol):
    """Standard input of a call that reacts to the agent's messages.

    Attributes:
        sent_bytes: what was sent of it so far.
        size_bytes: an upper bound of its size.
    """

    sent_bytes: int

    @property
    def size_bytes(self) -> int: ...
    def receive(self, message: AgentMessage) -> None: ...
    def pieces(self) -> Iterator[bytes]: ...
    def close(self) -> None: ...


class AgentClient:
    """Calls the agent on one device over an open transport.

    Attributes:
        device: the device.
        sent_bytes: payload sent so far, including the agent file.
    """

    def __init__(self, device: Device, transport: Transport, *, timeout_s: float) -> None:
        self.device = device
        self.sent_bytes = 0
        self._transport = transport
        self._timeout_s = timeout_s
        self._placement: Placement | None = None

    def install_agent_file(self) -> Placement:
        """Make sure that the device has this version's agent file; checked once a connection.

        Raises:
            DeviceUnsupported: the device has no Python that can run it.
            DeviceOutOfSpace: there is no room for it.
        """
        if self._placement is None:
            agent = build_agent()
            self._placement = install_agent(self._transport, self.device, agent, timeout_s=self._timeout_s)
            self.sent_bytes += self._placement.sent_bytes
            if self._placement.action is not PlacementAction.SAME:
                # Written by whichever command comes first, also one that only reads and needs no store.
                problem = note(self.device, "agent file", {"sha256": agent.sha256})
                if problem:
                    _log.warning("warning: %s: not in the audit log: %s", self.device.name, problem)
        return self._placement

    def facts(self) -> Facts:
        """Return the facts of the device.

        Raises:
            DeviceError, TransportError: as `call`.
        """
        placement = self.install_agent_file()
        agent = AgentFact(
            action=placement.action.value, sha256=build_agent().sha256, size_bytes=placement.sent_bytes
        )
        return Facts.from_probe(self.device.name, self.call("probe", {}), agent)

    def request(
        self,
        kind: type[R],
        verb: str,
        request: Mapping[str, Any],
        *,
        payload: Payload | None = None,
        stream: Stream | None = None,
        deadline_s: float = 60,
        on_event: OnEvent | None = None,
    ) -> R:
        """Run one verb and return its response as a value of `kind`; arguments and errors as for `call`.

        Args:
            kind: one that names the verb in its `verbs`.
        """
        if verb not in kind.verbs:
            raise ValueError(f"{kind.__name__} is not a response of the verb {verb!r}")
        body = self.call(
            verb, request, payload=payload, stream=stream, deadline_s=deadline_s, on_event=on_event
        )
        return parse(kind, body, device=self.device.name, verb=verb)

    def call(
        self,
        verb: str,
        request: Mapping[str, Any],
        *,
        payload: Payload | None = None,
        stream: Stream | None = None,
        deadline_s: float = 60,
        on_event: OnEvent | None = None,
        on_sent: Callable[[int], None] | None = None,
    ) -> dict[str, Any]:
        """Run one verb and return its response as the JSON object that arrived.

        Args:
            request: the request; `payload_bytes` is added when there is a payload.
            payload: bytes, or a file that is streamed.
            stream: instead of a payload: receives each message and decides what is sent. If it is the first
                call of a connection, the script that checks the agent file also runs it.
            deadline_s: how long the agent may be silent while it works. Sending the payload does not count.
            on_event: called with each `progress` and `window` message.
            on_sent: called with the size of each piece sent, from another thread.

        Raises:
            DeviceError: the agent refused; the subclass follows its error code.
            AgentProtocolError: the agent sent an invalid response.
            TransportError: the connection failed; DeviceTimeout when the deadline passed.
            AgentFileMissing: with a stream: nothing ran. Call `install_agent_file`, then call again with a
                new stream.
        """
        if verb not in wire.VERBS:
            raise ValueError(f"unknown verb of the agent: {verb!r}")

        def run() -> dict[str, Any]:
            return self._call(verb, request, payload, stream, deadline_s, on_event, on_sent)

        if not changes(verb, request):
            return run()
        with audited(self.device, verb, about(request)) as outcome:
            result = run()
            if result.get("changed") is False:
                outcome.result = "unchanged"
            return result

    def _call(
        self,
        verb: str,
        request: Mapping[str, Any],
        payload: Payload | None,
        stream: Stream | None,
        deadline_s: float,
        on_event: OnEvent | None,
        on_sent: Callable[[int], None] | None,
    ) -> dict[str, Any]:
        first = stream is not None and self._placement is None
        start_s = 2 * self._timeout_s
        frame = Frame(self.device.name, start_s=start_s, answer_s=max(_HELLO_S, deadline_s))
        if first:
            argv = command(self.device, build_agent(), verb, frame.mark)
        else:
            placement = self.install_agent_file()
            options = ["--home", placement.home, "--mark", frame.mark]
            argv = [self.device.python, *FLAGS, placement.path, verb, *options]
        size_bytes = _size(payload) if stream is None else stream.size_bytes
        message = dict(request) if payload is None else {**request, "payload_bytes": size_bytes}
        data = _payload(payload) if stream is None else stream.pieces()
        running = self._transport.run(
            frame.argv(argv),
            stdin=frame.stdin(chain([wire.canonical(message) + b"\n"], data)),
            limits=Limits(
                first_s=start_s,
                silence_s=start_s,
                total_s=_HELLO_S + 2 * deadline_s + size_bytes / _SLOWEST_BYTES_PER_S,
                output_bytes=_LONG_ANSWER_BYTES.get(verb, _ANSWER_BYTES),
            ),
            on_sent=on_sent,
        )
        name = self.device.name
        try:
            try:
                lines = frame.lines(running)
                if first:
                    self._placement = read_placement(lines, build_agent())
                last = _read_response(
                    lines,
                    self._receivers(stream, on_event),
                    on_first=lambda: running.allow_silence(deadline_s),
                    on_last=lambda: running.expect_end(END_S),
                )
            finally:
                # The sending thread may still wait for a message of the agent that will not come.
                if stream is not None:
                    stream.close()
                    self.sent_bytes += stream.sent_bytes
            ended = running.ended()
        except wire.WireError as error:
            raise AgentProtocolError(name, f"{verb}: {error}") from error
        except ShellHangs:
            raise
        except DeviceTimeout as error:
            raise DeviceTimeout(name, f"{verb}: {error.problem}", hint=error.hint) from error
        self.sent_bytes += size_bytes if stream is None else 0
        if not frame.started:
            raise frame.not_started(ended, problem=other_service(self._transport))
        if last is None:
            raise self._no_response(verb, ended)
        if last["event"] == "error":
            body = last.get("error")
            raise from_agent(name, body if isinstance(body, dict) else {})
        result = last.get("result")
        if not isinstance(result, dict):
            raise AgentProtocolError(name, f"{verb}: the result is not a JSON object")
        check_answer(verb, request, result, device=name)
        return result

    def _receivers(self, stream: Stream | None, on_event: OnEvent | None) -> OnEvent:
        def receive(message: AgentMessage) -> None:
            if stream is not None:
                stream.receive(message)
            if on_event is not None:
                on_event(message)
            if message.step == "damaged":
                _log.warning("warning: %s: %s", self.device.name, _damage_text(message.document))

        return receive

    def _no_response(self, verb: str, ended: Ended) -> Exception:
        if ended.exit_status in (126, 127) or LACKING.search(ended.stderr):
            return no_python(self.device, ended)
        reason = ended.stderr.splitlines()[-1] if ended.stderr else f"exit status {ended.exit_status}"
        return AgentProtocolError(self.device.name, f"{verb}: the agent ended without a response: {reason}")


def _read_response(
    lines: Iterator[bytes],
    on_event: OnEvent,
    *,
    on_first: Callable[[], None],
    on_last: Callable[[], None],
) -> dict[str, Any] | None:
    first = _first_message(lines)
    if first is None:
        return None
    on_first()
    wire.check_hello(first)
    last: dict[str, Any] | None = None
    for number, line in enumerate(lines):
        if number >= _MOST_MESSAGES:
            raise wire.WireError(f"more than {_MOST_MESSAGES} messages")
        if last is not None:
            _check_no_message(line)
            continue
        message = wire.parse(line)
        if message["event"] in ("result", "error"):
            last = message
            on_last()
        else:
            on_event(AgentMessage.of(message))
    return last


def _check_no_message(line: bytes) -> None:
    # What the shell prints when it ends (`trap ... EXIT`) is not a message.
    try:
        wire.parse(line)
    except wire.WireError:
        return
    raise wire.WireError(f"output after the result: {line[:80]!r}")


def _first_message(lines: Iterator[bytes]) -> dict[str, Any] | None:
    # A .bashrc may print lines before the agent does.
    for number, line in enumerate(lines):
        try:
            return wire.parse(line)
        except wire.WireError:
            if number >= _NOISE_LINES:
                raise
    return None


def _size(payload: Payload | None) -> int:
    if payload is None:
        return 0
    return len(payload) if isinstance(payload, bytes) else payload.stat().st_size


def _payload(payload: Payload | None) -> Iterator[bytes]:
    if isinstance(payload, bytes):
        yield payload
    elif payload is not None:
        with payload.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                yield chunk


def _damage_text(message: Mapping[str, Any]) -> str:
    """Return in one line which file was damaged and what the device did about it."""
    kept = f"; kept as {message['kept_as']}" if message.get("kept_as") else ""
    text = f"{message.get('file')} on the device {message.get('problem')}{kept}; {message.get('lost')}"
    return "".join(character if character.isprintable() else "?" for character in text)[:500]
