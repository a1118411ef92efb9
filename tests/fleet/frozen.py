"""The phases of a connection in which a link freezes, and how long it takes until that is noticed."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from edgeq.errors import DeviceTimeout, Unreachable
from edgeq.fleet.ssh.keepalive import Watch
from edgeq.testing.faulty_link import Direction, faulty_link
from tests.fleet.adapters import Adapter, endless, use


def noticed(phase: str, adapter: Adapter, server: Any, timeout_s: float, watch: Watch) -> float:
    """Return how long it took from the start until a frozen phase was an error."""
    started_s = time.monotonic()
    with pytest.raises((DeviceTimeout, Unreachable)) as caught:
        PHASES[phase](adapter, server, timeout_s, watch)
    assert caught.value.transient
    return time.monotonic() - started_s


def _reached(adapter: Adapter, server: Any, timeout_s: float, watch: Watch) -> None:
    with full_backlog() as port:
        adapter.connect(server.device(port=port), timeout_s=timeout_s, watch=watch)


def _frozen_at_login(after: Callable[[Adapter, Any], int]) -> Callable[..., None]:
    def phase(adapter: Adapter, server: Any, timeout_s: float, watch: Watch) -> None:
        with faulty_link(server.host, server.port) as link:
            device = server.device(port=link.port)
            link.freeze_after(after(adapter, server))
            with adapter.connect(device, timeout_s=timeout_s, watch=watch) as transport:
                use(transport, ["cat"])

    return phase


def _login_bytes(adapter: Adapter, server: Any) -> int:
    """Return how many bytes go to the device until the login is complete."""
    with (
        faulty_link(server.host, server.port) as link,
        adapter.connect(server.device(port=link.port), watch=Watch(every_s=60, patience_s=60)),
    ):
        return link.forwarded_bytes


def _once_running(
    argv: list[str], data: Callable[[], Iterator[bytes]], direction: Direction = Direction.BOTH
) -> Callable[..., None]:
    def phase(adapter: Adapter, server: Any, timeout_s: float, watch: Watch) -> None:
        with faulty_link(server.host, server.port) as link:
            device = server.device(port=link.port)
            with adapter.connect(device, timeout_s=timeout_s, watch=watch) as transport:
                threading.Timer(0.3, link.freeze_after, (0, direction)).start()
                use(transport, argv, data())

    return phase


PHASES: dict[str, Callable[..., None]] = {
    "reaching": _reached,
    "banner": _frozen_at_login(lambda adapter, server: 0),
    "key exchange": _frozen_at_login(lambda adapter, server: 40),
    # The last packet of a login is its signature, of more than 200 bytes.
    "login": _frozen_at_login(lambda adapter, server: _login_bytes(adapter, server) - 150),
    "opening a channel": _frozen_at_login(lambda adapter, server: _login_bytes(adapter, server) + 1),
    "sending": _once_running(["cat"], endless),
    "waiting": _once_running(["sleep", "600"], lambda: iter(())),
    "waiting, what we send still arrives": _once_running(["cat"], endless, Direction.FROM_DEVICE),
    "waiting, what it says still arrives": _once_running(
        ["sleep", "600"], lambda: iter(()), Direction.TO_DEVICE
    ),
}


@contextlib.contextmanager
def full_backlog() -> Iterator[int]:
    """A port where the kernel answers nothing: its queue of connections is full."""
    with socket.socket() as listener, contextlib.ExitStack() as held:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port: int = listener.getsockname()[1]
        for _ in range(4):
            waiting = held.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(("127.0.0.1", port))
        yield port
