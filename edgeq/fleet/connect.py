"""Opening a device: connection, login, agent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edgeq.fleet.client import AgentClient
from edgeq.fleet.ssh import connect
from edgeq.fleet.watch import STEP_S
from edgeq.values import Device


@contextmanager
def open_agent(device: Device, *, timeout_s: float = STEP_S) -> Iterator[AgentClient]:
    """Connect to a device for the length of a `with` block.

    Args:
        timeout_s: bound of each step of the connection; calls have deadlines of their own.

    Raises:
        TransportError: by its subclass what failed.
    """
    with connect(device, timeout_s=timeout_s) as transport:
        yield AgentClient(device, transport, timeout_s=timeout_s)
