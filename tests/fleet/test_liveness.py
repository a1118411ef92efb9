"""A frozen link is noticed in every phase of a connection; a slow link or a silent agent is not one."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from edgeq.errors import DeviceTimeout, TransportError, Unreachable
from edgeq.fleet.enrol import fetch_host_key
from edgeq.fleet.handshake import Address, open_session
from edgeq.fleet.ssh import SshTransport, connect
from edgeq.fleet.transport import Limits
from edgeq.fleet.watch import STEP_S, USUAL, Watch
from edgeq.testing.link import FaultyLink, Way, faulty_link
from edgeq.testing.loopback import loopback_device
from edgeq.testing.server import Trouble

# A verb's own deadline is minutes: it is not what notices.
LIMITS = Limits(first_s=600, silence_s=600, total_s=1200)
QUICK = Watch(every_s=0.2, patience_s=1.0)


def _endless() -> Iterator[bytes]:
    while True:
        yield bytes(65536)


def _use(transport: SshTransport, argv: list[str], data: Iterator[bytes]) -> None:
    for _ in transport.run(argv, stdin=data, limits=LIMITS).lines():
        pass


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


def _reached(server, timeout_s: float, watch: Watch) -> None:  # type: ignore[no-untyped-def]
    with full_backlog() as port:
        connect(server.device(port=port), timeout_s=timeout_s, watch=watch)


def _frozen_at_login(after: Callable[..., int]) -> Callable[..., None]:
    def phase(server, timeout_s: float, watch: Watch) -> None:  # type: ignore[no-untyped-def]
        with faulty_link(server.host, server.port) as link:
            device = server.device(port=link.port)
            link.freeze_after(after(server))
            with connect(device, timeout_s=timeout_s, watch=watch) as transport:
                _use(transport, ["cat"], iter(()))

    return phase


def _kex_bytes(server) -> int:  # type: ignore[no-untyped-def]
    """How much goes towards the device until nobody is logged in yet but everything is encrypted."""
    with faulty_link(server.host, server.port) as link:
        session, _ = open_session(
            Address(name="pi", host=server.host, port=link.port), timeout_s=9, prefer_key_type="ssh-ed25519"
        )
        session.close()
        return link.forwarded_bytes


def _login_bytes(server) -> int:  # type: ignore[no-untyped-def]
    with (
        faulty_link(server.host, server.port) as link,
        connect(server.device(port=link.port), timeout_s=9, watch=Watch(every_s=60, patience_s=60)),
    ):
        return link.forwarded_bytes


def _once_running(
    argv: list[str], data: Callable[[], Iterator[bytes]], way: Way = Way.BOTH
) -> Callable[..., None]:
    def phase(server, timeout_s: float, watch: Watch) -> None:  # type: ignore[no-untyped-def]
        with faulty_link(server.host, server.port) as link:
            device = server.device(port=link.port)
            with connect(device, timeout_s=timeout_s, watch=watch) as transport:
                threading.Timer(0.3, link.freeze_after, (0, way)).start()
                _use(transport, argv, data())

    return phase


PHASES: dict[str, Callable[..., None]] = {
    "reaching": _reached,
    "banner": _frozen_at_login(lambda _: 0),
    "key exchange": _frozen_at_login(lambda _: 40),
    "login": _frozen_at_login(lambda server: _kex_bytes(server) + 10),
    "opening a channel": _frozen_at_login(lambda server: _login_bytes(server) + 1),
    "sending": _once_running(["cat"], _endless),
    "waiting": _once_running(["sleep", "600"], lambda: iter(())),
    "waiting, what we send still arrives": _once_running(["cat"], _endless, Way.FROM_DEVICE),
    "waiting, what it says still arrives": _once_running(["sleep", "600"], lambda: iter(()), Way.TO_DEVICE),
}


def _noticed(phase: str, server, timeout_s: float, watch: Watch) -> float:  # type: ignore[no-untyped-def]
    started_s = time.monotonic()
    with pytest.raises((DeviceTimeout, Unreachable)) as caught:
        PHASES[phase](server, timeout_s, watch)
    assert caught.value.transient
    return time.monotonic() - started_s


@pytest.mark.parametrize("phase", PHASES)
def test_a_frozen_link_is_noticed_in_every_phase(server, phase: str) -> None:  # type: ignore[no-untyped-def]
    assert _noticed(phase, server, 1.0, QUICK) < 8


def test_with_the_usual_settings_that_is_ten_seconds(loopback_server) -> None:  # type: ignore[no-untyped-def]
    assert STEP_S < 10
    assert USUAL.patience_s + 1 < 10
    with ThreadPoolExecutor(len(PHASES)) as pool:
        futures = {phase: pool.submit(_noticed, phase, loopback_server, STEP_S, USUAL) for phase in PHASES}
        took = {phase: future.result() for phase, future in futures.items()}
    # Three seconds for the steps before the freeze, nine at once on a busy machine.
    assert max(took.values()) < 10 + 3, took


def test_a_server_that_refuses_commands_says_so(loopback_server, tmp_path) -> None:  # type: ignore[no-untyped-def]
    with (
        loopback_device(tmp_path / "device", trouble=Trouble.NO_EXEC) as device,
        connect(
            dataclasses.replace(
                loopback_server.device(),
                port=device.port,
                identity=device.identity,
                host_key=str(fetch_host_key(device.host, device.port, 9)),
            ),
            timeout_s=9,
        ) as transport,
        pytest.raises(TransportError, match="refuses to start a command") as caught,
    ):
        _use(transport, ["true"], iter(()))
    assert not caught.value.transient


def test_a_slow_link_is_not_a_frozen_one(server) -> None:  # type: ignore[no-untyped-def]
    watch = Watch(every_s=0.3, patience_s=1.5)
    with (
        faulty_link(server.host, server.port) as link,
        connect(server.device(port=link.port), timeout_s=9, watch=watch) as transport,
    ):
        link.drip(600_000)
        running = transport.run(["wc", "-c"], stdin=[bytes(2_400_000)], limits=LIMITS)
        assert list(running.lines()) == [b"2400000"]


def test_an_agent_that_works_in_silence_is_not_given_up(server) -> None:  # type: ignore[no-untyped-def]
    with faulty_link(server.host, server.port) as link:
        link.delay(0.05)
        with connect(server.device(port=link.port), timeout_s=9, watch=QUICK) as transport:
            running = transport.run(["sh", "-c", "sleep 4; echo done"], stdin=(), limits=LIMITS)
            assert list(running.lines()) == [b"done"]


def test_a_flipped_byte_ends_the_connection(server) -> None:  # type: ignore[no-untyped-def]
    with (
        faulty_link(server.host, server.port) as link,
        connect(server.device(port=link.port), timeout_s=9) as transport,
    ):
        link.flip_after(300_000)
        with pytest.raises(TransportError):
            _use(transport, ["sha256sum"], iter([bytes(2_000_000)]))


def test_the_link_leaves_no_thread(loopback_server) -> None:  # type: ignore[no-untyped-def]
    link = FaultyLink(loopback_server.host, loopback_server.port)
    device = dataclasses.replace(loopback_server.device(), port=link.port)
    with connect(device, timeout_s=9) as transport:
        link.freeze_after(0)
        assert transport.name == "pi"
    link.close()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("edgeq-link")] == []
