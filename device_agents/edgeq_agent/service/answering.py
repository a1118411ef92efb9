"""Whether what is to serve does: a start counts as one when something answers."""

from __future__ import annotations

import os
import socket
import time
from typing import Callable

from edgeq_agent.home import Home
from edgeq_agent.service.record import Wanted

# Loading numpy, a runtime and the models from a slow card.
_WAIT_S = 180.0
_EACH_S = 0.2


def wait(home: Home, wanted: Wanted, failed: Callable[[], str]) -> str:
    """Wait until the models' server takes connections; return "" then, or why it does not.

    Args:
        failed: tells why there is nothing to wait for any more, or "".
    """
    end = time.monotonic() + _WAIT_S
    while time.monotonic() < end:
        if _connects(home, wanted):
            return ""
        problem = failed()
        if problem:
            return "what serves ended: " + problem
        time.sleep(_EACH_S)
    return f"what serves took no connection within {_WAIT_S:g} s"


def _connects(home: Home, wanted: Wanted) -> bool:
    kind = socket.AF_UNIX if wanted.port is None else socket.AF_INET
    with socket.socket(kind, socket.SOCK_STREAM) as link:
        link.settimeout(5.0)
        try:
            if wanted.port is None:
                link.connect(os.path.join(home.root, "serve.sock"))
            else:
                link.connect(("127.0.0.1", wanted.port))
        except OSError:  # not yet
            return False
    return True
