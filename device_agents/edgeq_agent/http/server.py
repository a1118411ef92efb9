"""The HTTP server on loopback or a unix socket: every resource is limited, a stop lets requests finish."""

from __future__ import annotations

import socket
import socketserver
import sys
from typing import Any

from edgeq_agent.http.access import Access
from edgeq_agent.http.addresses import Address, Sharing, bind_unix, family_of, remove_socket, shown
from edgeq_agent.http.admission import Admission, Client
from edgeq_agent.http.connection import Connection
from edgeq_agent.http.limits import Gate, Limits
from edgeq_agent.http.open_inference import Service
from edgeq_agent.sdk.errors import AddressRefused


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """A server on an address that only this machine can reach.

    Args:
        address: (host, port) on loopback, port 0 for a free one; or the path of a unix socket.
        access: who may send requests; `tcp` follows the address.
        sharing: which users may connect to a unix socket.

    Raises:
        AddressRefused: EQ548, the address is reachable from other machines, or in use.
    """

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False  # `stop` waits for requests, with a deadline
    request_queue_size = 64

    def __init__(
        self, address: Address, service: Service, limits: Limits, access: Access | None = None,
        sharing: Sharing | None = None,
    ) -> None:  # fmt: skip
        self.service = service
        self.limits = limits
        self.ending = False
        self.tcp = not isinstance(address, str)
        self._access = (access or Access())._replace(tcp=self.tcp)
        self._sharing = sharing or Sharing()
        self._busy = Gate()
        self._left = False
        self.address_family = family_of(address)
        try:
            super().__init__(address, socketserver.BaseRequestHandler)  # type: ignore[arg-type] # also a path
        except OSError as error:
            raise AddressRefused(
                f"address {shown(address)}", f"cannot be used: {error.strerror or error}",
                hint="choose another port or path",
            ) from error  # fmt: skip
        self._admission = Admission(limits, self.server_address[1] if self.tcp else None)

    def server_bind(self) -> None:
        """Bind the address."""
        if self.tcp:
            super().server_bind()
        else:
            bind_unix(self.socket, str(self.server_address), self._sharing)

    @property
    def address(self) -> str:
        """The address for clients."""
        if not self.tcp:
            return "unix:" + str(self.server_address)
        host, port = self.server_address[:2]
        return f"http://[{host!s}]:{port}" if ":" in str(host) else f"http://{host!s}:{port}"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in its own thread, unless there are too many."""
        client = self._admission.admit(request, client_address)
        if client is None:
            self.shutdown_request(request)
            return
        super().process_request(request, client)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection."""
        client: Client = client_address
        if self.tcp:
            request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        Connection(
            client, self.service, self._access, self.limits, self._admission, self._busy, lambda: self.ending
        ).serve()

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        self._admission.forget(request)
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
        finished = self._busy.wait_empty(timeout_s)
        self._admission.end_all()
        return finished

    def leave(self) -> None:
        """Close the address and remove the unix socket; safe when the server never ran."""
        if not (self.tcp or self._left):
            # Before the close: after it another server may have taken the path.
            remove_socket(str(self.server_address))
        self._left = True
        self.server_close()
