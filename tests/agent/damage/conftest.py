"""A home that has every file, and a request of each verb that succeeds on it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from edgeq_agent.activation import candidates, counters
from edgeq_agent.activation.candidates import CandidateRelease
from edgeq_agent.autostart import record, service_log
from edgeq_agent.autostart.record import Artifacts, Spec, Supervision
from edgeq_agent.releases import pins
from edgeq_agent.split import ab_split
from edgeq_agent.split.ab_split import Arm, Split
from edgeq_agent.storage import log_file
from edgeq_agent.storage.home import Home
from edgeq_agent.telemetry import outbox
from tests.agent.damage.homes import ask, window


@pytest.fixture(scope="session")
def full_home(
    prepared_both: Path, float_bundle: Any, int8_bundle: Any, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return a home that has every file: the float release serves, the int8 one is staged and pinned."""
    root = tmp_path_factory.mktemp("full") / "home"
    shutil.copytree(prepared_both, root, symlinks=True)
    home = Home(str(root))
    ask(root, "status")
    runtime = os.listdir(home.runtimes)[0]
    pins.pin(home, "tiny", int8_bundle.release)
    candidates.write(home, "tiny", {int8_bundle.release: CandidateRelease(runtime, 1, {}, 1)})
    arms = (Arm("a", float_bundle.release, 0.5), Arm("b", int8_bundle.release, 0.5))
    ab_split.write(home, "tiny", Split(arms, "salt", float_bundle.release, "e"))
    counters.add(home, "tiny", float_bundle.release, calls=3, errors=1)
    record.write(home, Spec("cron", ("tiny",)), Artifacts(crontab="@reboot x"), [])
    record.write_start(home, "", {})
    record.write_supervision(home, Supervision("", 1, ""))
    for log in (service_log.path(home), home.crash_log):
        assert log_file.append(log, "Traceback") == ""
    with outbox.opened(home) as box:
        box.append("tiny", float_bundle.release, window())
    with contextlib.closing(sqlite3.connect(home.outbox)) as database, database:
        for seq in range(2, 201):
            database.execute(
                "INSERT INTO windows (boot, seq, model, release, merged, body) "
                "SELECT boot, ?, model, release, 1, replace(body, '\"seq\":1', '\"seq\":' || ?) "
                "FROM windows WHERE seq = 1",
                (seq, seq),
            )
        database.execute("UPDATE boots SET last_seq = 200")
    return root


@pytest.fixture(scope="session")
def requests(kit: Any, int8_bundle: Any, float_bundle: Any, tiny_data: Any) -> dict[str, tuple[Any, bytes]]:
    """Return for each verb a request that succeeds on a sound home, and its payload."""
    samples, blob = kit.npz(input_0=tiny_data[:2]), b"a blob"
    sha = hashlib.sha256(blob).hexdigest()
    model = {"model": "tiny"}
    return {
        "probe": ({}, b""),
        "missing": ({"blobs": {sha: 6}}, b""),
        "soak": (model, b""),
        "recover": ({}, b""),
        "pin": (model, b""),
        "unpin": (model, b""),
        "unstage": ({**model, "release": "0" * 64}, b""),
        "split": (model, b""),
        "prune": ({"dry_run": True}, b""),
        "status": ({}, b""),
        "logs": ({}, b""),
        "telemetry": ({}, b""),
        "trust": ({}, b""),
        "service": ({"action": "status"}, b""),
        "put": ({"sha256": sha, "size_bytes": 6, "payload_bytes": 6}, blob),
        "infer": ({**model, "payload_bytes": len(samples)}, samples),
        "bench": ({**model, "runs": 3, "min_seconds": 0.01}, b""),
        "activate": (float_bundle.request(), b""),
        "rollback": (model, b""),
        "stage": (int8_bundle.request(), b""),
        "runtime": ({"digest": kit.RUNTIME, "wheels": [], "modules": ["ai_edge_litert"]}, b""),
    }
