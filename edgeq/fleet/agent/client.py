"""The agent's client: one verb, one answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from edgeq.errors import AgentProtocolError, DeviceTimeout
from edgeq.fleet.agent.bootstrap import Placement, no_python, place_agent
from edgeq.fleet.agent.combined_bootstrap import FLAGS, command, read_placement
from edgeq.fleet.agent.errors import from_agent
from edgeq.fleet.agent.file import build_agent
from edgeq.fleet.facts import AgentFact, Facts
from edgeq.fleet.transport import Ended, Limits, Transport
from edgeq.values import Device
from edgeq_agent import wire

Payload = bytes | Path
OnEvent = Callable[[Mapping[str, Any]], None]

# Starting Python from a slow card, before the first line.
_HELLO_S = 45.0
# What start-up files may print before the agent speaks.
_NOISE_LINES = 64
# A link slower than this is no link: it bounds the total of a call with a payload.
_SLOWEST_BYTES_PER_S = 16 * 1024
_CHUNK_BYTES = 256 * 1024


class Stream(Protocol):
    """Input of a call that depends on what the agent says meanwhile.

    Attributes:
        sent_bytes: what went out of it so far.
        size_bytes: the most that it may become.
    """

    sent_bytes: int

    @property
    def size_bytes(self) -> int: ...
    def hear(self, message: Mapping[str, Any]) -> None: ...
    def pieces(self) -> Iterator[bytes]: ...
    def close(self) -> None: ...


class AgentClient:
    """Calls the agent on one device over an open transport.

    Attributes:
        device: the device.
        sent_bytes: payload that went out so far, the agent file included.
    """

    def __init__(self, device: Device, transport: Transport, *, timeout_s: float) -> None:
        self.device = device
        self.sent_bytes = 0
        self._transport = transport
        self._timeout_s = timeout_s
        self._placement: Placement | None = None

    def place(self) -> Placement:
        """Make sure that the agent is there; the first call of a connection asks the device.

        Raises:
            DeviceUnsupported: no Python that can run it.
            DeviceOutOfSpace: no room for it.
        """
        if self._placement is None:
            agent = build_agent()
            self._placement = place_agent(self._transport, self.device, agent, timeout_s=self._timeout_s)
            self.sent_bytes += self._placement.sent_bytes
        return self._placement

    def facts(self) -> Facts:
        """Return what the device says about itself now."""
        placement = self.place()
        agent = AgentFact(
            action=placement.action.value, sha256=build_agent().sha256, size_bytes=placement.sent_bytes
        )
        return Facts.from_probe(self.device.name, self.call("probe", {}), agent)

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
        """Run one verb and return its result.

        Args:
            request: the request; `payload_bytes` is added where there is a payload.
            payload: bytes, or a file that is streamed.
            stream: in the place of a payload: hears each message, and says what is sent. As the first call of
                a connection it finds the agent file and runs it in one go.
            deadline_s: how long the agent may be silent while it works. Sending the payload does not count.
            on_event: called with each `progress` and `window` message.
            on_sent: called with the size of each piece that went out, from another thread.

        Raises:
            DeviceError: the agent refused; by its code.
            AgentProtocolError: what came was no answer.
            TransportError: the way to the device failed; DeviceTimeout when the deadline passed.
            NotPlaced: with a stream: nothing was run, `place` first, and bring a new stream.
        """
        if verb not in wire.VERBS:
            raise ValueError(f"{verb!r} is no verb of the agent")
        first = stream is not None and self._placement is None
        if first:
            argv = command(self.device, build_agent(), verb)
        else:
            placement = self.place()
            argv = [self.device.python, *FLAGS, placement.path, verb, "--home", placement.home]
        size_bytes = _size(payload) if stream is None else stream.size_bytes
        message = dict(request) if payload is None else {**request, "payload_bytes": size_bytes}
        data = _payload(payload) if stream is None else stream.pieces()
        running = self._transport.run(
            argv,
            stdin=chain([wire.canonical(message) + b"\n"], data),
            limits=Limits(
                first_s=max(_HELLO_S, deadline_s),
                silence_s=deadline_s,
                total_s=_HELLO_S + 2 * deadline_s + size_bytes / _SLOWEST_BYTES_PER_S,
            ),
            on_sent=on_sent,
        )
        name = self.device.name
        try:
            try:
                lines = running.lines()
                if first:
                    self._placement = read_placement(lines, build_agent())
                last = _read_answer(lines, _hearers(stream, on_event))
            finally:
                # Its thread may still wait for a word of the agent, which will not come.
                if stream is not None:
                    stream.close()
                    self.sent_bytes += stream.sent_bytes
            ended = running.ended()
        except wire.WireError as error:
            raise AgentProtocolError(name, f"{verb}: {error}") from error
        except DeviceTimeout as error:
            raise DeviceTimeout(name, f"{verb}: {error.problem}", hint=error.hint) from error
        self.sent_bytes += size_bytes if stream is None else 0
        if last is None:
            raise self._no_answer(verb, ended)
        if last["event"] == "error":
            body = last.get("error")
            raise from_agent(name, body if isinstance(body, dict) else {})
        result = last.get("result")
        if not isinstance(result, dict):
            raise AgentProtocolError(name, f"{verb}: the result is no object")
        return result

    def _no_answer(self, verb: str, ended: Ended) -> Exception:
        if ended.exit_status in (126, 127):
            return no_python(self.device, ended)
        reason = ended.stderr.splitlines()[-1] if ended.stderr else f"exit status {ended.exit_status}"
        return AgentProtocolError(self.device.name, f"{verb}: the agent ended without an answer: {reason}")


def _read_answer(lines: Iterator[bytes], on_event: OnEvent | None) -> dict[str, Any] | None:
    first = _first_message(lines)
    if first is None:
        return None
    wire.check_hello(first)
    last: dict[str, Any] | None = None
    for line in lines:
        if last is not None:
            raise wire.WireError(f"more after the answer: {line[:80]!r}")
        message = wire.parse(line)
        if message["event"] in ("result", "error"):
            last = message
        elif on_event is not None:
            on_event(message)
    return last


def _first_message(lines: Iterator[bytes]) -> dict[str, Any] | None:
    # A talkative .bashrc prints before the agent does.
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


def _hearers(stream: Stream | None, on_event: OnEvent | None) -> OnEvent | None:
    if stream is None:
        return on_event
    hear = stream.hear

    def both(message: Mapping[str, Any]) -> None:
        hear(message)
        if on_event is not None:
            on_event(message)

    return both
