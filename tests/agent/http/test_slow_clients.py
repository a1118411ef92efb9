"""Clients that are slow, idle or many: they lose their places, and others are served soon."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from edgeq_agent.http import peers
from edgeq_agent.http.limits import Limits
from edgeq_agent.http.open_inference import Reply
from edgeq_agent.http.server import Server
from tests.agent.http.in_process import InProcess, Recording, serving_here
from tests.agent.served import rest

HEAD = b"POST /v2/models/x/infer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
SLOW: dict[str, bytes] = {
    "nothing": b"",
    "half a request line": b"GET /v2/mod",
    "half a head": HEAD,
    "half a body": HEAD + b"Content-Length: 90000\r\n\r\n{",
    "a body that was announced": HEAD + b"Content-Length: 90000\r\nExpect: 100-continue\r\n\r\n",
    "an answer and then nothing": b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


def is_served(server: InProcess, method: str, path: str, *, within_s: float) -> bool:
    """Return whether a request is served; one that gets a 503 tries again until then."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        body = b"{}" if method == "POST" else b""
        with suppress(OSError, IndexError, ValueError):
            if server.ask(method, path, body)[0] not in (503,):
                return True
        time.sleep(0.05)
    return False


def connected(server: InProcess) -> socket.socket:
    """Return a connection; a unix socket whose queue is full refuses at once instead of waiting."""
    while True:
        try:
            return server.connect()
        except BlockingIOError:
            time.sleep(0.01)


@pytest.mark.first_is_quick
@pytest.mark.parametrize("kind", SLOW)
@pytest.mark.parametrize("unix", [False, True])
def test_slow_connections_starve_no_one(tmp_path: Path, kind: str, unix: bool) -> None:
    """Twice as many as the server has places, all of one user; the next request is served."""
    with serving_here(tmp_path / "s.sock" if unix else None) as server:
        slow = [connected(server) for _ in range(128)]
        for each in slow:
            with suppress(OSError):
                each.sendall(SLOW[kind])
        try:
            assert is_served(server, "GET", "/v2/health/ready", within_s=2)
            assert is_served(server, "GET", "/v2", within_s=4)
            assert is_served(server, "POST", "/v2/models/x/infer", within_s=4)
        finally:
            for each in slow:
                each.close()


@pytest.mark.slow
def test_clients_that_do_not_read_their_responses(tmp_path: Path) -> None:
    with serving_here(limits=Limits(connections=8, requests=2, body_grace_s=0.2)) as server:
        slow = [server.connect() for _ in range(16)]
        request = b"GET /v2/models/" + b"a" * 4_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for each in slow:
            each.settimeout(0.3)
            with suppress(OSError):  # until the buffers of both sides are full
                each.sendall(request * 3_000)
        assert is_served(server, "GET", "/v2", within_s=5)
        for each in slow:
            each.close()


class Held(Recording):
    """A service whose requests run until they are released."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.release = threading.Event(), threading.Event()

    def respond(self, method: str, path: str, headers: object, body: bytes) -> Reply:
        if "held" in path:
            self.begun.set()
            self.release.wait(20)
        return super().respond(method, path, {}, body)


def test_health_is_answered_while_every_place_runs_a_request() -> None:
    """A request that runs is never ended for another one: what is too much gets 503."""
    service = Held()
    limits = Limits(connections=6, requests=6, newcomers=0, reserved=2)
    with serving_here(limits=limits, service=service) as server:
        running: list[int] = []
        ask = lambda: running.append(server.ask("GET", "/v2/models/held")[0])  # noqa: E731
        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        for _ in range(5):
            assert server.ask("GET", "/v2/health/live")[0] == 200
        status, headers, _ = server.ask("GET", "/v2")
        assert (status, headers["retry-after"], headers["connection"]) == (503, "1", "close")
        service.release.set()
        for thread in threads:
            thread.join(20)
        assert running == [404] * 6


def test_a_stop_waits_a_limited_time() -> None:
    """A request that does not end is cut off, so that the server ends."""
    service = Held()
    server = Server(("127.0.0.1", 0), service, Limits())
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    with closing(InProcess(server.address, service).connect()) as link:
        link.sendall(b"GET /v2/models/held HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert service.begun.wait(20)
        began = time.monotonic()
        assert not server.stop(0.3)
        assert time.monotonic() - began < 10
        assert rest(link) == b""
    service.release.set()
    thread.join(20)
    assert service.respond("GET", "/v2/health/live", {}, b"").status == 200
    assert service.respond("GET", "/v2/health/ready", {}, b"").status == 400
    assert not thread.is_alive()


def test_the_deadline_of_a_head_is_shorter_under_load() -> None:
    limits = Limits(connections=4, header_s=30.0, idle_s=30.0, loaded_header_s=0.5)
    with serving_here(limits=limits) as server:
        with closing(server.connect()) as alone:
            alone.sendall(b"GET /v2 HT")
            alone.settimeout(1.0)
            with pytest.raises(socket.timeout):
                alone.recv(1)
        links = [server.connect() for _ in range(4)]
        began = time.monotonic()
        links[-1].sendall(b"GET /v2 HT")
        links[-1].settimeout(10)
        assert links[-1].recv(1) == b""
        assert time.monotonic() - began < 5
        for link in links:
            link.close()


def test_honest_clients_at_once_are_all_served() -> None:
    """More than there are places, each with a new connection and all at once."""
    with serving_here() as server:
        served: list[bool] = []
        work: Callable[[], None] = lambda: served.append(  # noqa: E731
            is_served(server, "POST", "/v2/models/x/infer", within_s=20)
        )
        threads = [threading.Thread(target=work) for _ in range(150)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert served == [True] * 150


HOLD = """
import socket, sys, time
family, address = socket.AF_UNIX, sys.argv[1]
if "/" not in address:
    family, address = socket.AF_INET, ("127.0.0.1", int(address))
links, head = [], sys.argv[2].encode()
for _ in range(100):
    link = socket.socket(family)
    link.connect(address)
    links.append(link)
    try:
        link.sendall(head)
    except OSError:
        pass
print("held", flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to act as another user")
@pytest.mark.parametrize("unix", [False, True])
def test_another_user_gets_in_at_once_where_one_user_holds_every_place(unix: bool) -> None:
    """Without waiting until the places of the other user count as stale."""
    from edgeq_agent.http.addresses import Sharing

    folder = Path(f"/tmp/edgeq-peers-{os.getpid()}")
    folder.mkdir(mode=0o755)
    limits = Limits(connections=16, requests=4, grace_s=60.0, body_grace_s=60.0, loaded_header_s=60.0)
    path = folder / "s.sock" if unix else None
    try:
        with serving_here(path, limits, sharing=Sharing(mode=0o666)) as server:
            place = str(path) if path else server.netloc.rpartition(":")[2]
            head = HEAD.decode() + "Content-Length: 90000\r\n\r\n{"
            process = subprocess.Popen(
                ["/usr/bin/python3", "-c", HOLD, place, head], user=65534, stdout=subprocess.PIPE, cwd="/"
            )
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == b"held\n"
                time.sleep(0.3)
                for _ in range(3):
                    assert server.ask("POST", "/v2/models/x/infer", b"{}")[0] == 404
                    assert server.ask("GET", "/v2/health/live")[0] == 200
            finally:
                process.kill()
                process.wait()
                assert process.stdout is not None
                process.stdout.close()
    finally:
        for left in folder.iterdir():
            left.unlink()
        folder.rmdir()


def test_the_user_of_a_connection_is_known() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as link:
            accepted, address = listener.accept()
            with accepted:
                assert peers.peer_of(accepted, address) == "address 127.0.0.1"
                client_port = link.getsockname()[1]
                assert peers.users_of([client_port], port) == {client_port: f"user {os.geteuid()}"}
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        assert peers.peer_of(one, "") == f"user {os.geteuid()}"
