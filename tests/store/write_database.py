"""Write the stored database of the current schema version: `python -m tests.store.write_database`.

Run it once, when you add a migration, and commit the file. It never changes afterwards: `test_migrations.py`
opens it with every later edgeq.
"""

from __future__ import annotations

import gzip
import itertools
import sqlite3
import sys
import tempfile
from pathlib import Path
from typing import Any

from edgeq.store import ReceivedWindow, RefusedRecord, Store
from edgeq.store.engine import open_engine
from edgeq.store.migrations import VERSION
from tests.telemetry.golden import received, window_json

FOLDER = Path(__file__).parent / "databases"


def stored(version: int) -> Path:
    """Return the path of the stored database of a schema version."""
    return FOLDER / f"v{version}.db.gz"


def fill(store: Store) -> None:
    """Write at least one record of each kind."""
    store.record_run("convert", "kws.tflite", {"size_bytes": 7, "note": "für"})
    store.record_run("bundle", "kws.eqb", {"release": "r1"})
    store.put_release("r1", {"model": "kws"}, {"inputs": []})
    store.put_release("r2", {"model": "kws"}, None)
    refused = [RefusedRecord(reason="no window", body=[1, "x"])]
    store.ingest("pi", [_window(1), _window(2)], device_id="d1", refused=refused)
    store.record_bench("pi", {"model": "kws", "release": "r1", "runs": 200})
    store.record_audit("ann", "rollback", "pi/kws", {"to": "r1"})
    store.ingest("pi", [_window(3, experiment="e-1", arm="a")], device_id="d1")
    store.record_experiment("e-1", "started", "ann", {"model": "kws"})


def main() -> None:
    """Write the file of the current version; refuse to replace one."""
    target = stored(VERSION)
    if target.exists():
        sys.exit(f"{target} is there; a stored database is never replaced")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.db"
        seconds = itertools.count(1_760_000_000)
        with Store(open_engine(path), path, clock=lambda: next(seconds) * 10**9) as store:
            fill(store)
        with sqlite3.connect(path) as raw:
            raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        raw.close()
        target.write_bytes(gzip.compress(path.read_bytes(), 9, mtime=0))


def _window(seq: int, **more: Any) -> ReceivedWindow:
    return received(window_json("verb infer", boot="b:1", seq=seq, release="r1", **more))


if __name__ == "__main__":
    main()
