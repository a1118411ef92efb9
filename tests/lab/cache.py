"""The lab's cache: what takes long to build is built once, under a name made of what it was built from."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Read once: the tests take EDGEQ_* out of their environment.
FOLDER = Path(os.environ.get("EDGEQ_LAB_CACHE") or "~/.cache/edgeq-lab").expanduser()


def key_of(content: Any, *sources: str) -> str:
    """Return a name for what the code in `sources` builds from `content`: other ones, another name."""
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for source in sources:
        digest.update(Path(source).read_bytes())
    return digest.hexdigest()[:16]


def built(name: str, key: str, build: Callable[[Path], None], *, folder: Path = FOLDER) -> Path:
    """Return `<folder>/<name>-<key>`, built by `build(path)` where it is not there yet.

    A build that was cut short is never found: the folder gets its name when it is complete. Two sessions that
    want the same take turns.
    """
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"{name}-{key}"
    with _one_at_a_time(folder / f"{name}.lock"):
        if not place.is_dir():
            partial = folder / f"{name}-{key}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            try:
                build(partial)
                partial.rename(place)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return place


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
