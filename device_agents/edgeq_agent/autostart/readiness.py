"""Wait until the model server reports that it is ready."""

from __future__ import annotations

import os
import socket
import time
from typing import Callable

from edgeq_agent.autostart.record import Spec
from edgeq_agent.storage.home import Home

# Loading numpy, a runtime and the models from a slow card takes minutes.
_TIMEOUT_S = 180.0
_POLL_S = 0.2
# The server listens while it loads, and responds afterwards.
_RESPONSE_TIMEOUT_S = 20.0
_REQUEST = b"GET /v2/health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def wait(home: Home, spec: Spec, failure: Callable[[], str]) -> str:
    """Wait until the server is ready; return "", or why it is not.

    Args:
        failure: returns why the server ended, or "" while it runs.
    """
    deadline = time.monotonic() + _TIMEOUT_S
    while time.monotonic() < deadline:
        status = _status(home, spec)
        if status == 200:
            return ""
        if status is not None:
            return f"the server runs but is not ready (HTTP {status}): a model is missing"
        problem = failure()
        if problem:
            return "the server ended: " + problem
        time.sleep(_POLL_S)
    return f"the server did not respond within {_TIMEOUT_S:g} s"


def _status(home: Home, spec: Spec) -> int | None:
    """Return the HTTP status of the readiness endpoint; None while there is no response."""
    ip = socket.AF_INET6 if "--host=::1" in spec.options else socket.AF_INET
    family = socket.AF_UNIX if spec.port is None else ip
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(_RESPONSE_TIMEOUT_S)
        try:
            if spec.port is None:
                connection.connect(spec.socket or os.path.join(home.root, "serve.sock"))
            else:
                host = "::1" if "--host=::1" in spec.options else "127.0.0.1"
                connection.connect((host, spec.port))
            connection.sendall(_REQUEST)
            words = connection.recv(4096).split()
        except OSError:  # it does not listen yet, or ended while it answered
            return None
    return int(words[1]) if len(words) > 1 and words[0].startswith(b"HTTP/") and words[1].isdigit() else None
