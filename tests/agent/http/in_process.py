"""A server in the test's own process, which has no models: enough for everything that comes before them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgeq_agent.http.access import Access
from edgeq_agent.http.addresses import Sharing
from edgeq_agent.http.limits import Limits
from edgeq_agent.http.open_inference import Reply, Service
from edgeq_agent.http.server import Server
from tests.agent.served import Served


class Recording(Service):
    """A service that remembers which requests reached it."""

    def __init__(self) -> None:
        super().__init__({}, {})
        self.seen: list[tuple[str, str, bytes]] = []

    def respond(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        self.seen.append((method, path, body))
        return super().respond(method, path, headers, body)


class InProcess(Served):
    """A running server, with the requests that reached its service."""

    def __init__(self, address: str, service: Recording) -> None:
        super().__init__(None, {"address": address})  # type: ignore[arg-type] # it has no process of its own
        self.service = service


@contextmanager
def serving_here(
    path: Path | None = None,
    limits: Limits | None = None,
    access: Access | None = None,
    sharing: Sharing | None = None,
    service: Recording | None = None,
) -> Iterator[InProcess]:
    """Run a server on a free port, or on a unix socket."""
    service = service or Recording()
    address: Any = ("127.0.0.1", 0) if path is None else str(path)
    server = Server(address, service, limits or Limits(), access, sharing)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield InProcess(server.address, service)
    finally:
        server.stop(5)
        thread.join(10)
