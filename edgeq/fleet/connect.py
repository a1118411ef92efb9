"""Connect to a device and its agent, with retries where they are safe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from edgeq.fleet.agent.client import AgentClient
from edgeq.fleet.backoff import NO_RETRY, RetryPolicy, retrying
from edgeq.fleet.openssh import transport as openssh
from edgeq.fleet.ssh import transport as ssh
from edgeq.fleet.ssh.keepalive import STEP_S
from edgeq.fleet.transport import Transport
from edgeq.values import Device, TransportKind

T = TypeVar("T")

__all__ = ["NO_RETRY", "RetryPolicy", "ask", "open_agent", "open_transport"]


def open_transport(device: Device, *, timeout_s: float = STEP_S) -> Transport:
    """Connect to a device by the transport in its inventory entry.

    Raises:
        ToolMissing: the entry requires the ssh program, and there is none.
        TransportError: the subclass says what failed.
    """
    if device.transport is TransportKind.OPENSSH:
        return openssh.connect(device, timeout_s=timeout_s)
    return ssh.connect(device, timeout_s=timeout_s)


@contextmanager
def open_agent(
    device: Device, *, timeout_s: float = STEP_S, retry_policy: RetryPolicy = NO_RETRY
) -> Iterator[AgentClient]:
    """Connect to a device for the duration of a `with` block.

    Args:
        timeout_s: time limit of each step of the connection; calls have their own deadlines.
        retry_policy: applies to the connection only: nothing was requested before it is open.

    Raises:
        TransportError: the subclass says what failed.
    """
    with retrying(lambda: open_transport(device, timeout_s=timeout_s), retry_policy) as transport:
        yield AgentClient(device, transport, timeout_s=timeout_s)


def ask(
    device: Device,
    action: Callable[[AgentClient], T],
    *,
    repeatable: bool,
    retry_policy: RetryPolicy = NO_RETRY,
    timeout_s: float = STEP_S,
) -> T:
    """Return the result of an action on a connected device.

    Args:
        repeatable: whether the action is idempotent, so that it may run again after its response was lost.
            Otherwise only the connection is retried.
        timeout_s: time limit of each step of the connection.

    Raises:
        EdgeqError: what the action raises; after retries, the last error.
    """
    if not repeatable:
        with open_agent(device, timeout_s=timeout_s, retry_policy=retry_policy) as client:
            return action(client)

    def attempt() -> T:
        with open_agent(device, timeout_s=timeout_s) as client:
            return action(client)

    return retrying(attempt, retry_policy)
