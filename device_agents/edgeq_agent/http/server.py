"""The HTTP server on loopback or a unix socket: every resource is limited, a stop lets requests finish."""

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
        """Read with one deadline for each part of a request instead of a timeout for each read."""
        self.connection = self.request
        if self.connection.family != getattr(socket, "AF_UNIX", None):
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        self._reader = TimedReader(self.connection)
        self.rfile: io.BufferedReader = io.BufferedReader(self._reader, 65536)
        self.wfile: Any = _Writer(self.connection, self.server.limits.body_s)

    def handle_one_request(self) -> None:
        """Respond to one request, or end the connection."""
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
            # The client is too slow or has disconnected: it gets no response, only the log an entry.
            self.log_error("connection ended: %s", error)
            self.close_connection = True

    def handle_expect_100(self) -> bool:
        """Check the announced size before the client sends the body."""
        try:
            self._length()
        except Refused as refused:
            self._refuse(refused)
            return False
        return bool(super().handle_expect_100())

    def _serve(self) -> None:
        if not self.server.requests.enter():
            # The body was not read, so the connection cannot be used further.
            self._refuse(Refused(503, "too many requests at the same time", close=True), {"Retry-After": "1"})
            return
        try:
            self._check_host()
            body = self._body()
            headers = {name.lower(): value for name, value in self.headers.items()}
            self._send(self.server.service.respond(self.command, self.path, headers, body))
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
        """Refuse DNS rebinding: a browser's request for a foreign name that resolves to this machine."""
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
            limit = self.server.limits.body_bytes
            raise Refused(413, f"the body: expected at most {limit} bytes, got {text}", close=True)
        return int(text)

    def _body(self) -> bytes:
        length = self._length()
        self._reader.allow(self.server.limits.body_s)
        body = self.rfile.read(length)
        if len(body) < length:
            raise ConnectionResetError(f"the client disconnected after {len(body)} of {length} bytes")
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
        """Send http.server's own errors (a malformed request line) in this server's format."""
        self.close_connection = True
        self._refuse(Refused(int(code), message or HTTPStatus(code).phrase))

    def address_string(self) -> str:
        """Return the client's address; a unix socket has none."""
        return str(self.client_address[0]) if self.server.tcp else "unix"

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        """Log nothing for a request that got a response; telemetry counts it."""

    def __getattr__(self, name: str) -> Callable[[], None]:
        # Every HTTP method goes to `_serve`; the router knows which are allowed.
        if name.startswith("do_"):
            return self._serve
        raise AttributeError(name)


class _Writer(io.RawIOBase):
    """A socket's outgoing bytes, with a timeout for a client that does not read them."""

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
    """A server on an address that only this machine can reach.

    Args:
        address: (host, port) on loopback, port 0 for a free one; or the path of a unix socket.

    Raises:
        AddressRefused: EQ548, the address is reachable from other machines, or in use.
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
                "other machines could reach it",
                expected="127.0.0.1, ::1 or a unix socket",
                hint="put a reverse proxy with authentication in front of it, or forward a port over SSH",
            )
        else:
            self.address_family = LOOPBACK[address[0]]
        try:
            super().__init__(address, Handler)  # type: ignore[arg-type] # typeshed knows no unix sockets here
        except OSError as error:
            raise AddressRefused(
                f"address {_shown(address)}", f"cannot be used: {error.strerror or error}",
                hint="choose another port or path",
            ) from error  # fmt: skip

    def server_bind(self) -> None:
        """Bind; only the owner may connect to a unix socket, from the moment it exists."""
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
        """The address for clients."""
        if not self.tcp:
            return "unix:" + str(self.server_address)
        host, port = self.server_address[:2]
        return f"http://[{host!s}]:{port}" if ":" in str(host) else f"http://{host!s}:{port}"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Handle a connection in its own thread, unless there are too many."""
        if not self._connections.enter():
            self.shutdown_request(request)
            return
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        with self._open_lock:
            known = request in self._open
            self._open.discard(request)
        if known:
            self._connections.leave()
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log in one line an error that ended a connection."""
        error = sys.exc_info()[1]
        sys.stderr.write(f"edgeq-agent serve: connection ended: {type(error).__name__}: {error}\n")

    def stop(self, timeout_s: float) -> bool:
        """Accept no more requests and wait for those that run; return whether all of them finished."""
        self.ending = self.service.ending = True
        self.shutdown()
        self.leave()
        finished = self.requests.wait_empty(timeout_s)
        with self._open_lock:
            for connection in self._open:
                _end(connection)
        return finished

    def leave(self) -> None:
        """Close the address and remove the unix socket; safe when the server never ran."""
        if not (self.tcp or self._left):
            # Before the close: after it another server may have taken the path.
            _remove_socket(str(self.server_address))
        self._left = True
        self.server_close()


def _end(connection: Any) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # the client closed it


def _shown(address: tuple[str, int] | str) -> str:
    return address if isinstance(address, str) else f"{address[0]}:{address[1]}"


def _make_room(path: str) -> None:
    """Remove the socket that a dead server left behind; no other file is removed."""
    if len(os.fsencode(path)) > _SOCKET_PATH_BYTES:
        raise AddressRefused(
            f"socket {path}", expected=f"a path of at most {_SOCKET_PATH_BYTES} bytes",
            got=f"{len(os.fsencode(path))}", hint="choose a shorter path with --unix",
        )  # fmt: skip
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise AddressRefused(
            f"socket {path}", "is a file of another kind and was not removed", hint="choose another path"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            _remove_socket(path)
            return
        except OSError as error:
            raise AddressRefused(f"socket {path}", f"cannot be checked: {error.strerror}") from error
    raise AddressRefused(
        f"socket {path}", "another server listens there", hint="stop it, or choose another path"
    )


def _remove_socket(path: str) -> None:
    try:
        disk.unlink(path)
    except FileNotFoundError:
        return
