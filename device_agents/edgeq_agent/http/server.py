"""The HTTP server: loopback or a unix socket, bounded in every way, and a stop cuts nobody off."""

from __future__ import annotations

import io
import os
import socket
import stat
import sys
import threading
import traceback
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable

from edgeq_agent import __version__
from edgeq_agent.http.errors import Refused
from edgeq_agent.http.limits import Gate, Limits, TimedReader
from edgeq_agent.http.open_inference import Reply, Service, as_json
from edgeq_agent.sdk.errors import AddressRefused
from edgeq_agent.storage import disk

LOOPBACK = {"127.0.0.1": socket.AF_INET, "localhost": socket.AF_INET, "::1": socket.AF_INET6}
_LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")
_SOCKET_PATH_BYTES = 107


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version = "edgeq-agent/" + __version__
    sys_version = ""
    error_content_type = "application/json"
    server: Server

    def setup(self) -> None:
        """Read through a deadline instead of the socket's own timeout."""
        self.connection = self.request
        if self.connection.family != getattr(socket, "AF_UNIX", None):
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        self._reader = TimedReader(self.connection)
        self.rfile: io.BufferedReader = io.BufferedReader(self._reader, 65536)
        self.wfile: Any = _Writer(self.connection, self.server.limits.body_s)

    def handle_one_request(self) -> None:
        """Answer one request, or end the connection."""
        limits = self.server.limits
        self.close_connection = True
        try:
            self._reader.allow(limits.idle_s)
            if self.server.ending or not self.rfile.peek(1):
                return
            self._reader.allow(limits.header_s)
            self.raw_requestline = self.rfile.readline(65537)
            if len(self.raw_requestline) > 65536:
                self.requestline = self.request_version = self.command = ""
                self.send_error(HTTPStatus.REQUEST_URI_TOO_LONG)
                return
            if self.raw_requestline and self.parse_request():
                self._serve()
        except (socket.timeout, ConnectionError) as error:
            # The client is too slow or gone; nobody is there to be told but the log.
            self.log_error("connection ended: %s", error)
            self.close_connection = True

    def handle_expect_100(self) -> bool:
        """Look at the announced size before asking for the body."""
        try:
            self._length()
        except Refused as refused:
            self._refuse(refused)
            return False
        return bool(super().handle_expect_100())

    def _serve(self) -> None:
        if not self.server.requests.enter():
            # The body was not read: the connection cannot go on.
            self._refuse(Refused(503, "too many requests at the same time", close=True), {"Retry-After": "1"})
            return
        try:
            self._check_host()
            body = self._body()
            headers = {name.lower(): value for name, value in self.headers.items()}
            self._send(self.server.service.answer(self.command, self.path, headers, body))
        except Refused as refused:
            self._refuse(refused)
        except (socket.timeout, ConnectionError):
            raise
        except Exception as error:  # noqa: BLE001 - the boundary of a request: the server goes on
            traceback.print_exc()
            self._refuse(Refused(500, f"a bug: {type(error).__name__}: {error}"[:300], close=True))
        finally:
            self.server.requests.leave()

    def _check_host(self) -> None:
        """Refuse what a browser sends for a foreign page that had its name resolve to this machine."""
        host = self.headers.get("Host", "")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if self.server.tcp and name.lower() not in _LOCAL_NAMES:
            raise Refused(403, f"Host {host[:100]!r}: expected one of " + ", ".join(_LOCAL_NAMES), close=True)

    def _length(self) -> int:
        if self.headers.get("Transfer-Encoding"):
            raise Refused(501, "Transfer-Encoding: send a Content-Length instead", close=True)
        stated = self.headers.get_all("Content-Length") or []
        if not stated:
            if self.command == "POST":
                raise Refused(411, "Content-Length is missing", close=True)
            return 0
        text = stated[0].strip()
        if len(set(stated)) != 1 or not (text.isascii() and text.isdigit()) or len(text) > 18:
            raise Refused(400, "Content-Length: expected one number of bytes", close=True)
        if int(text) > self.server.limits.body_bytes:
            most = self.server.limits.body_bytes
            raise Refused(413, f"the body: expected at most {most} bytes, got {text}", close=True)
        return int(text)

    def _body(self) -> bytes:
        length = self._length()
        self._reader.allow(self.server.limits.body_s)
        body = self.rfile.read(length)
        if len(body) < length:
            raise ConnectionResetError(f"the client left after {len(body)} of {length} bytes")
        return body

    def _refuse(self, refused: Refused, headers: dict[str, str] | None = None) -> None:
        self.close_connection = self.close_connection or refused.close
        reply = as_json(refused.status, {"error": refused.message})
        self._send(reply._replace(headers=dict(reply.headers, **(headers or {}))))

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        if self.close_connection or self.server.ending:
            self.close_connection = True
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what http.server itself refuses (a broken request line) as this server's errors."""
        self.close_connection = True
        self._refuse(Refused(int(code), message or HTTPStatus(code).phrase))

    def address_string(self) -> str:
        """Return who the client is: on a unix socket there is no address."""
        return str(self.client_address[0]) if self.server.tcp else "unix"

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        """Say nothing of requests that were answered: telemetry counts them."""

    def __getattr__(self, name: str) -> Callable[[], None]:
        # Every method comes to `_serve`, whose router knows which are allowed.
        if name.startswith("do_"):
            return self._serve
        raise AttributeError(name)


class _Writer(io.RawIOBase):
    """A socket's outgoing bytes; a client that does not take them is left after a while."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        super().__init__()
        self._connection = connection
        self._seconds = seconds

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._connection.settimeout(self._seconds)
        self._connection.sendall(data)
        return len(data)


class Server(ThreadingHTTPServer):
    """Listens on an address that only this machine can reach.

    Args:
        address: (host, port) on loopback, port 0 for a free one; or the path of a unix socket.

    Raises:
        AddressRefused: EQ548, it is reachable from elsewhere, or taken.
    """

    daemon_threads = True
    block_on_close = False  # `stop` waits for requests, with a deadline
    request_queue_size = 64

    def __init__(self, address: tuple[str, int] | str, service: Service, limits: Limits) -> None:
        self.service = service
        self.limits = limits
        self.requests = Gate(limits.requests)
        self.ending = False
        self._connections = Gate(limits.connections)
        self._open: set[Any] = set()
        self._open_lock = threading.Lock()
        self._left = False
        self.tcp = not isinstance(address, str)
        if isinstance(address, str):
            self.address_family = socket.AF_UNIX
            _make_room(address)
        elif address[0] not in LOOPBACK:
            raise AddressRefused(
                f"address {address[0]}",
                "anyone on the network could reach it",
                expected="127.0.0.1, ::1 or a unix socket",
                hint="let a reverse proxy with authentication listen outside, or forward a port over SSH",
            )
        else:
            self.address_family = LOOPBACK[address[0]]
        try:
            super().__init__(address, Handler)  # type: ignore[arg-type] # typeshed knows no unix sockets here
        except OSError as error:
            raise AddressRefused(
                f"address {_shown(address)}", f"cannot be listened on: {error.strerror or error}",
                hint="choose another port or path",
            ) from error  # fmt: skip

    def server_bind(self) -> None:
        """Bind; a unix socket is its owner's alone from its first moment on."""
        if self.tcp:
            super().server_bind()
            return
        before = os.umask(0o177)
        try:
            self.socket.bind(self.server_address)
        finally:
            os.umask(before)
        self.server_name, self.server_port = "localhost", 0

    @property
    def address(self) -> str:
        """Where a client finds it."""
        if not self.tcp:
            return "unix:" + str(self.server_address)
        host, port = self.server_address[:2]
        return f"http://[{host!s}]:{port}" if ":" in str(host) else f"http://{host!s}:{port}"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin a connection in a thread of its own, unless there are too many."""
        if not self._connections.enter():
            self.shutdown_request(request)
            return
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """End a connection."""
        with self._open_lock:
            known = request in self._open
            self._open.discard(request)
        if known:
            self._connections.leave()
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say in one line what ended a connection that no handler caught."""
        error = sys.exc_info()[1]
        sys.stderr.write(f"edgeq-agent serve: connection ended: {type(error).__name__}: {error}\n")

    def stop(self, timeout_s: float) -> bool:
        """Take no more requests and let those under way be answered; tell whether all were."""
        self.ending = self.service.ending = True
        self.shutdown()
        self.leave()
        done = self.requests.empty(timeout_s)
        with self._open_lock:
            for connection in self._open:
                _end(connection)
        return done

    def leave(self) -> None:
        """Close the address and take the unix socket away; also where nothing was ever served."""
        if not (self.tcp or self._left):
            # Before the close: after it another server may have taken the path.
            _remove_socket(str(self.server_address))
        self._left = True
        self.server_close()


def _end(connection: Any) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it ended by itself


def _shown(address: tuple[str, int] | str) -> str:
    return address if isinstance(address, str) else f"{address[0]}:{address[1]}"


def _make_room(path: str) -> None:
    """Remove the socket that a server which died left behind; nothing else is ever removed."""
    if len(os.fsencode(path)) > _SOCKET_PATH_BYTES:
        raise AddressRefused(
            f"socket {path}", expected=f"a path of at most {_SOCKET_PATH_BYTES} bytes",
            got=f"{len(os.fsencode(path))}", hint="give a shorter one with --unix",
        )  # fmt: skip
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise AddressRefused(
            f"socket {path}", "is another file, and is left alone", hint="choose another path"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            _remove_socket(path)
            return
        except OSError as error:
            raise AddressRefused(f"socket {path}", f"cannot be looked at: {error.strerror}") from error
    raise AddressRefused(
        f"socket {path}", "a server listens there already", hint="stop it, or choose another"
    )


def _remove_socket(path: str) -> None:
    try:
        disk.unlink(path)
    except FileNotFoundError:
        return
