"""Share connections and requests among clients, so that slow ones cannot keep the others out.

A connection that waits for its client (for a head, the rest of a body, or room for the response) loses its
place to another one when no place is free: of the user who has the most, the one that has waited longest.
A connection that runs a request is never ended.
"""

from __future__ import annotations

import enum
import socket
import threading
import time
from typing import Any, Callable

from edgeq_agent.http.limits import Limits
from edgeq_agent.http.peers import peer_of, users_of

_SLOT_WAIT_S = 1.0
# With fewer, a user gets a place beyond the limit: a client often opens one before its last one is gone.
_FEW = 4


class Phase(enum.Enum):
    """What a connection does."""

    HEAD = "waits for a request"
    BODY = "receives a body"
    RUN = "runs a request"
    SEND = "sends a response"


class Client:
    """One connection.

    Attributes:
        peer: the user or address at its other end.
        reserved: whether it may ask for health alone.
        evicted: whether it was ended so that another one gets its place.
    """

    def __init__(self, connection: socket.socket, address: Any, reserved: bool) -> None:
        self.connection = connection
        self.port = address[1] if isinstance(address, tuple) else None
        self.peer = peer_of(connection, address)
        self.reserved = reserved
        self.evicted = False
        self.has_slot = False
        self._phase, self._since_s = Phase.HEAD, time.monotonic()

    @property
    def phase(self) -> Phase:
        """What it does."""
        return self._phase

    def enter(self, phase: Phase) -> None:
        """Start to do something else."""
        self._phase, self._since_s = phase, time.monotonic()

    def waits_s(self, limits: Limits) -> float:
        """Return for how long it has waited for its client beyond the grace; 0 or less while it may."""
        if self.evicted or self._phase is Phase.RUN:
            return 0.0
        grace_s = limits.grace_s if self._phase is Phase.HEAD else limits.body_grace_s
        return time.monotonic() - self._since_s - grace_s

    def end(self) -> None:
        """Disconnect it; its thread notices."""
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # the client closed it


class Admission:
    """The open connections, and the slots of the requests that run."""

    def __init__(self, limits: Limits, server_port: int | None) -> None:
        self._limits = limits
        self._server_port = server_port
        self._clients: dict[Any, Client] = {}
        self._changed = threading.Condition()

    def admit(self, connection: Any, address: Any) -> Client | None:
        """Return the client of a new connection; None when there is no place for it."""
        limits = self._limits
        with self._changed:
            normal = [client for client in self._open() if not client.reserved]
            reserved = False
            client = Client(connection, address, False)
            if len(normal) >= limits.connections:
                self._name_users([*normal, client])
                held = sum(other.peer == client.peer for other in normal)
                spare = held < _FEW and len(normal) < limits.connections + limits.newcomers
                reserved = not (spare or self._evict(normal))
            if reserved:
                others = [other for other in self._open() if other.reserved]
                if len(others) >= limits.reserved and not self._evict(others):
                    return None
            client.reserved = reserved
            self._clients[connection] = client
            return client

    def forget(self, connection: Any) -> None:
        """Remove a connection that ended."""
        with self._changed:
            self._clients.pop(connection, None)
            self._changed.notify_all()

    def header_s(self, seconds: float) -> float:
        """Return the time to wait for a head: the given one, or less under load."""
        with self._changed:
            loaded = 2 * len(self._open()) > self._limits.connections
        return min(seconds, self._limits.loaded_header_s) if loaded else seconds

    def take_slot(self, client: Client) -> bool:
        """Take one of the slots for requests; return whether there was one.

        When all are taken, the request whose body has been arriving for the longest loses its slot.
        """
        with self._changed:
            if not self._has_room(client):
                holders = [other for other in self._open() if other.has_slot and other.phase is Phase.BODY]
                if not self._evict(holders):
                    return False
                self._changed.wait_for(lambda: self._has_room(client), _SLOT_WAIT_S)
                if not self._has_room(client):
                    return False
            client.has_slot = True
            return True

    def free_slot(self, client: Client) -> None:
        """Give the slot back."""
        with self._changed:
            client.has_slot = False
            self._changed.notify_all()

    def end_all(self) -> None:
        """Disconnect everything that is open."""
        with self._changed:
            for client in self._clients.values():
                client.end()

    def _open(self) -> list[Client]:
        return [client for client in self._clients.values() if not client.evicted]

    def _has_room(self, client: Client) -> bool:
        # An ended connection keeps its slot, and the memory of its body, until its thread has noticed.
        holders = [other for other in self._clients.values() if other.has_slot]
        if len(holders) < self._limits.requests:
            return True
        self._name_users([*holders, client])
        is_new = all(other.peer != client.peer for other in holders)
        return is_new and len(holders) < self._limits.requests + -(-self._limits.requests // 4)

    def _evict(self, candidates: list[Client]) -> bool:
        """End one connection that waits for its client; return whether there was one."""
        waiting = [client for client in candidates if client.waits_s(self._limits) > 0]
        if not waiting:
            return False
        self._name_users(candidates)
        held = [client.peer for client in candidates]
        order: Callable[[Client], Any] = lambda each: (held.count(each.peer), each.waits_s(self._limits))  # noqa: E731
        victim = max(waiting, key=order)
        victim.evicted = True
        victim.end()
        return True

    def _name_users(self, clients: list[Client]) -> None:
        """Find the users of connections to a port, of which only the address is known so far."""
        ports = [client.port for client in clients if client.port and client.peer.startswith("address")]
        if not ports or self._server_port is None:
            return
        users = users_of(ports, self._server_port)
        for client in clients:
            if client.port in users and client.peer.startswith("address"):
                client.peer = users[client.port]
