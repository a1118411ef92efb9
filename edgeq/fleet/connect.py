"""Opening a device: connection, login, agent; and beginning again where that can do no harm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from edgeq.fleet.agent.client import AgentClient
from edgeq.fleet.backoff import ONCE, Backoff, OnRetry, retrying
from edgeq.fleet.openssh import transport as openssh
from edgeq.fleet.ssh import transport as ssh
from edgeq.fleet.ssh.keepalive import STEP_S
from edgeq.fleet.transport import Transport
from edgeq.values import Device, TransportKind

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How a call begins again when the way to the device fails.

    Attributes:
        backoff: how often and how late.
        on_retry: called with the failure and the seconds until the next try.
    """

    backoff: Backoff = ONCE
    on_retry: OnRetry | None = None


NO_RETRY = Retry()


def open_transport(device: Device, *, timeout_s: float = STEP_S) -> Transport:
    """Connect to a device by the transport that its entry names.

    Raises:
        ToolMissing: it wants the ssh program, and there is none.
        TransportError: by its subclass what failed.
    """
    if device.transport is TransportKind.OPENSSH:
        return openssh.connect(device, timeout_s=timeout_s)
    return ssh.connect(device, timeout_s=timeout_s)


@contextmanager
def open_agent(
    device: Device, *, timeout_s: float = STEP_S, retry: Retry = NO_RETRY
) -> Iterator[AgentClient]:
    """Connect to a device for the length of a `with` block.

    Args:
        timeout_s: bound of each step of the connection; calls have deadlines of their own.
        retry: of the connection alone: until it stands nothing was asked of the device.

    Raises:
        TransportError: by its subclass what failed.
    """
    transport = retrying(
        lambda: open_transport(device, timeout_s=timeout_s), retry.backoff, on_retry=retry.on_retry
    )
    with transport:
        yield AgentClient(device, transport, timeout_s=timeout_s)


def ask(
    device: Device,
    action: Callable[[AgentClient], T],
    *,
    repeatable: bool,
    retry: Retry = NO_RETRY,
    timeout_s: float = STEP_S,
) -> T:
    """Return what an action on a connected device gives.

    Args:
        repeatable: whether the action may run again when its answer was lost; else only the connection is
            tried again.
        timeout_s: bound of each step of the connection.

    Raises:
        EdgeqError: what the action raises; of failures of the way the last one.
    """
    if not repeatable:
        with open_agent(device, timeout_s=timeout_s, retry=retry) as client:
            return action(client)

    def attempt() -> T:
        with open_agent(device, timeout_s=timeout_s) as client:
            return action(client)

    return retrying(attempt, retry.backoff, on_retry=retry.on_retry)
