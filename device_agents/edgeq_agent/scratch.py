"""Half-made things in `tmp/`: named by the process that makes them, swept once that process is gone."""

from __future__ import annotations

import os

from edgeq_agent import disk
from edgeq_agent.home import Home


def path(home: Home, name: str) -> str:
    """Return a path of this process's own for something half-made."""
    return os.path.join(home.temporary, f"{os.getpid()}-{name}")


def remove(target: str) -> None:
    """Remove a file or a folder that may be gone already."""
    try:
        if os.path.isdir(target) and not os.path.islink(target):
            disk.remove_tree(target)
        else:
            disk.unlink(target)
    except OSError:
        # Gone already; or the disk refuses, and then what led here matters more: the next call sweeps again.
        return


def sweep(home: Home) -> None:
    """Remove what calls that died left behind; what a running call makes stays."""
    for name in os.listdir(home.temporary):
        maker = name.partition("-")[0]
        if not (maker.isdigit() and _alive(int(maker))):
            remove(os.path.join(home.temporary, name))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's: the number was given again, but better keep than break
        return True
    return True
