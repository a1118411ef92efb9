"""Whether what is to serve does: a start counts as one when the models' server says that it is ready."""

from __future__ import annotations

import os
import socket
import time
from typing import Callable

from edgeq_agent.autostart.record import Wanted
from edgeq_agent.storage.home import Home

# Loading numpy, a runtime and the models from a slow card.
_WAIT_S = 180.0
_EACH_S = 0.2
# It listens while it loads, and answers afterwards.
_ANSWER_S = 20.0
_ASK = b"GET /v2/health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def wait(home: Home, wanted: Wanted, failed: Callable[[], str]) -> str:
    """Wait until the models' server is ready; return "" then, or why it is not.

    Args:
        failed: tells why there is nothing to wait for any more, or "".
    """
    end = time.monotonic() + _WAIT_S
    while time.monotonic() < end:
        status = _ready(home, wanted)
        if status == 200:
            return ""
        if status is not None:
            return f"what serves is up, and not ready (HTTP {status}): a model is missing"
        problem = failed()
        if problem:
            return "what serves ended: " + problem
        time.sleep(_EACH_S)
    return f"what serves gave no answer within {_WAIT_S:g} s"


def _ready(home: Home, wanted: Wanted) -> int | None:
    """Return the HTTP status of the server's readiness, or None while there is no answer."""
    kind = socket.AF_UNIX if wanted.port is None else socket.AF_INET
    with socket.socket(kind, socket.SOCK_STREAM) as link:
        link.settimeout(_ANSWER_S)
        try:
            if wanted.port is None:
                link.connect(os.path.join(home.root, "serve.sock"))
            else:
                link.connect(("127.0.0.1", wanted.port))
            link.sendall(_ASK)
            words = link.recv(4096).split()
        except OSError:  # not yet, or it ended in the middle
            return None
    return int(words[1]) if len(words) > 1 and words[0].startswith(b"HTTP/") and words[1].isdigit() else None
