"""Logs of devices: the newest entries once, or new ones again and again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

from edgeq.errors import EdgeqError, UsageError
from edgeq.fleet.agent.client import AgentClient
from edgeq.fleet.connect import NO_RETRY, RetryPolicy, ask, open_agent
from edgeq.fleet.parallel import Results, on_each
from edgeq.fleet.responses import Count, Items, Response
from edgeq.units import parse_duration
from edgeq.values import Device

SOURCES = ("journal", "service", "crash")
MOST_LINES = 5000


class LogEntry(Response):
    """One entry; `time_ns` is by the device's clock, 0 if the entry has none."""

    source: str
    time_ns: Count
    text: str


class DeviceLogs(Response):
    """The response of `logs`.

    Attributes:
        entries: oldest first.
        cursors: by source, for the next request.
        problems: why a source could not be read.
        omitted: how many older entries there are.
    """

    verbs = ("logs",)

    entries: Items[LogEntry]
    cursors: Mapping[str, str]
    problems: Items[str] = ()
    omitted: Count = 0


def since_request(text: str | None) -> dict[str, Any]:
    """Return the fields of the request for `--since`: an age such as 2h, or a time such as 2026-11-29T21:00.

    Raises:
        UsageError: it is neither.
    """
    if text is None:
        return {}
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        try:
            return {"since_s": parse_duration(text, subject="--since") / 1e9}
        except EdgeqError as error:
            raise UsageError(
                "--since",
                expected="an age such as 30m or 2h, or a time such as 2026-11-29T21:00",
                got=repr(text),
            ) from error
    # A time without a zone is this machine's.
    since_ns = int(moment.timestamp() * 1e9) if moment.year >= 1970 else -1
    if not 0 <= since_ns < 2**63:
        raise UsageError("--since", expected="a time after 1970", got=repr(text))
    return {"since_ns": since_ns}


def when(time_ns: int) -> str:
    """Return a device's time in UTC, or a dash."""
    try:
        return datetime.fromtimestamp(time_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S") if time_ns else "-"
    except (ValueError, OverflowError, OSError):  # a device may send any number
        return "-"


def logs(
    device: Device,
    *,
    lines: int = 200,
    since: str | None = None,
    sources: Sequence[str] = (),
    retry_policy: RetryPolicy = NO_RETRY,
) -> DeviceLogs:
    """Return the newest entries of a device's logs.

    Args:
        lines: at most so many entries.
        since: as `since_request`.
        sources: some of SOURCES; all by default.

    Raises:
        UsageError: `since` is neither an age nor a time.
        TransportError: the device cannot be reached.
    """
    request = {"lines": lines, "sources": list(sources), **since_request(since)}
    return ask(device, lambda client: _read(client, request), repeatable=True, retry_policy=retry_policy)


def logs_many(
    devices: Sequence[Device],
    *,
    lines: int = 200,
    since: str | None = None,
    sources: Sequence[str] = (),
    retry_policy: RetryPolicy = NO_RETRY,
) -> Results[DeviceLogs]:
    """Return the newest entries of several devices; arguments as for `logs`."""
    since_request(since)
    return on_each(
        devices,
        lambda device: logs(device, lines=lines, since=since, sources=sources, retry_policy=retry_policy),
    )


class Followed:
    """Reads what was added to the logs of devices since the last time, over connections that stay open.

    A device that fails in one round is connected again in the next.
    """

    def __init__(
        self, devices: Sequence[Device], *, lines: int, since: str | None, sources: Sequence[str]
    ) -> None:
        self._devices = devices
        self._sources = list(sources)
        self._lines = lines
        self._first = {"lines": lines, "sources": self._sources, **since_request(since)}
        self._cursors: dict[str, Mapping[str, str]] = {}
        self._open: dict[str, tuple[ExitStack, AgentClient]] = {}

    def __enter__(self) -> Followed:
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._open):
            self._close(name)

    def rounds(self) -> Iterator[Results[DeviceLogs]]:
        """Yield the new entries of all devices, without an end; the caller waits between the rounds."""
        while True:
            yield on_each(self._devices, self._next)

    def _next(self, device: Device) -> DeviceLogs:
        request: dict[str, Any] = self._first
        if device.name in self._cursors:
            cursors = dict(self._cursors[device.name])
            request = {"lines": MOST_LINES, "sources": self._sources, "cursors": cursors}
        try:
            answer = _read(self._client(device), request)
        except BaseException:
            self._close(device.name)
            raise
        self._cursors[device.name] = answer.cursors
        return answer

    def _client(self, device: Device) -> AgentClient:
        if device.name not in self._open:
            with ExitStack() as stack:
                client = stack.enter_context(open_agent(device))
                self._open[device.name] = (stack.pop_all(), client)
        return self._open[device.name][1]

    def _close(self, name: str) -> None:
        opened = self._open.pop(name, None)
        if opened is not None:
            opened[0].close()


def _read(client: AgentClient, request: Mapping[str, Any]) -> DeviceLogs:
    return client.request(DeviceLogs, "logs", request)
