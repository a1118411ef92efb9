"""Transfers and fleets side by side: edgeq against scp, OpenSSH's sftp and pyinfra, on one sshd.

`python -m benchmarks.deploy [--json] [--rounds 5] [--devices 50] [--rows push,slow,redeploy,fleet,agent]`

Each time is end to end. edgeq's includes connecting, the device's hash, its sync and the rename. The peer's
includes the start of its program, because it keeps no process between devices. Rounds alternate, so that both
meet the same load.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.deploy_pyinfra import Job, pyinfra_python, run_pyinfra
from benchmarks.deploy_sshd import Sshd, slow_way, sshd
from benchmarks.figures import Figure, last_line
from edgeq.bundle.keys import workspace_key
from edgeq.fleet.agent.file import build_agent
from edgeq.fleet.agent.upload import Content, upload
from edgeq.fleet.connect import open_agent
from edgeq.fleet.deploy import deploy_device
from edgeq.fleet.trust import pin
from edgeq.testing.tiny_bundle import write_tiny_bundle
from edgeq.values import Device

_AT_ONCE = 8
ROWS = ("push", "slow", "redeploy", "fleet", "agent")


def _seconds(action: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    action()
    return time.perf_counter() - started_s


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3f} s ({min(values):.3f} to {max(values):.3f}, {len(values)} rounds)"


def _file(folder: Path, size_bytes: int, seed: int) -> Path:
    path = folder / f"content-{size_bytes}-{seed}"
    path.write_bytes(np.random.default_rng(seed).bytes(size_bytes))  # random bytes do not compress
    return path


def _push(device: Device, content: Content) -> None:
    with open_agent(device) as client:
        if not upload(client, [content], partial_blobs=()).stored:
            raise SystemExit("it was there already")


def _transfers(
    server: Sshd,
    folder: Path,
    size_bytes: int,
    rounds: int,
    port: int,
    peer: Callable[[Path, Path], list[str]],
) -> tuple[list[float], list[float]]:
    device = server.device(f"push-{size_bytes}", port=port)
    with open_agent(device) as client:
        client.install_agent_file()
    ours, theirs = [], []
    for number in range(rounds):
        path, target = _file(folder, size_bytes, number), folder / "copied"
        content = Content.from_source(path)
        ours.append(_seconds(lambda: _push(device, content)))  # noqa: B023 - called immediately
        batch = f"put {path} {target}\n"
        argv = peer(path, target)
        theirs.append(
            _seconds(
                lambda: subprocess.run(argv, input=batch, text=True, check=True, stdout=subprocess.DEVNULL)  # noqa: B023
            )
        )
        for old in (path, target):
            old.unlink()
        shutil.rmtree(Path(device.home, "blobs"))
    return ours, theirs


def push(server: Sshd, folder: Path, rounds: int) -> tuple[list[Figure], str]:
    """100 MB over loopback, against scp."""

    def scp(path: Path, target: Path) -> list[str]:
        return ["scp", "-q", *server.options(server.port), str(path), f"{server.user}@127.0.0.1:{target}"]

    ours, theirs = _transfers(server, folder, 100_000_000, rounds, server.port, scp)
    ratio = statistics.median(theirs) / statistics.median(ours)
    figure = Figure(
        name="push 100 MB, throughput over scp's", value=ratio, unit="ratio", peer=1.0, reach=">=1.0"
    )
    return [figure], f"push 100 MB: edgeq {_spread(ours)}; scp {_spread(theirs)}"


def slow(server: Sshd, folder: Path, rounds: int) -> tuple[list[Figure], str]:
    """10 MB at 50 ms, against sftp."""
    with slow_way(server.port, 0.025) as port:

        def sftp(_path: Path, _target: Path) -> list[str]:
            return ["sftp", "-q", *server.options(port), "-b", "-", f"{server.user}@127.0.0.1"]

        ours, theirs = _transfers(server, folder, 10_000_000, rounds, port, sftp)
    ratio = statistics.median(ours) / statistics.median(theirs)
    name = "push 10 MB at 50 ms, time over sftp's"
    figure = Figure(name=name, value=ratio, unit="ratio", peer=1.0, reach="<=0.5")
    return [figure], f"push 10 MB at 50 ms: edgeq {_spread(ours)}; sftp {_spread(theirs)}"


def trusting(device: Device, folder: Path) -> None:
    """Make a device trust the key of the benchmark's bundles, as an enrolment does."""
    with open_agent(device) as client:
        pin(client, [workspace_key(folder).public])


def redeploy(server: Sshd, folder: Path, rounds: int) -> tuple[list[Figure], str]:
    """A deploy of the release that already serves."""
    bundle = write_tiny_bundle(folder / "tiny.eqb")
    device = server.device("redeploy")
    trusting(device, folder)
    deploy_device(device, bundle, workspace=folder)
    outcomes = [deploy_device(device, bundle, workspace=folder) for _ in range(rounds)]
    took = [outcome.duration_s for outcome in outcomes]
    sent = max(outcome.sent_bytes for outcome in outcomes)
    return [
        Figure(name="redeploy, nothing changed: payload", value=sent, unit="bytes", peer=None, reach="<=0"),
        Figure(
            name="redeploy, nothing changed: time",
            value=statistics.median(took),
            unit="s",
            peer=None,
            reach="<1.0",
        ),
    ], f"redeploy, nothing changed: {sent} bytes in {_spread(took)}"


def fleet(server: Sshd, folder: Path, rounds: int, count: int) -> tuple[list[Figure], str]:
    """Many devices in parallel, against pyinfra with the same copies and commands."""
    interpreter, reason = pyinfra_python(folder)
    if interpreter is None:
        return [], f"fleet: skipped, {reason}"
    job = Job(
        agent=folder / "agent.pyz",
        files=[_file(folder, size, 77) for size in (1_000_000, 50_000, 2_000)],
        at_once=_AT_ONCE,
    )
    job.agent.write_bytes(build_agent().data)
    contents = [Content.from_source(path) for path in job.files]

    def one(device: Device) -> None:
        with open_agent(device) as client:
            upload(client, contents)
            client.call("probe", {})
            client.call("status", {})

    ours, theirs = [], []
    for number in range(rounds):
        names = [f"fleet-{number}-{at}" for at in range(count)]
        devices = [server.device(name) for name in names]

        def all_ours() -> None:
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                list(pool.map(one, devices))  # noqa: B023 - called immediately

        ours.append(_seconds(all_ours))
        theirs.append(run_pyinfra(interpreter, server, folder, job, [f"peer-{name}" for name in names]))
    ratio = statistics.median(ours) / statistics.median(theirs)
    name = f"{count} devices in parallel, time over pyinfra's"
    figure = Figure(name=name, value=ratio, unit="ratio", peer=1.0, reach="<=1.0")
    return [figure], f"{count} devices, {_AT_ONCE} at once: edgeq {_spread(ours)}; pyinfra {_spread(theirs)}"


def agent(folder: Path, rounds: int) -> tuple[list[Figure], str]:
    """The agent: its size, and the time from the start of Python to the response of its first verb."""
    built = build_agent()
    path = folder / "agent.pyz"
    path.write_bytes(built.data)
    argv = [sys.executable, "-I", "-S", str(path), "probe", "--home", str(folder / "agent-home")]

    def probe() -> None:
        subprocess.run(argv, input=b"{}\n", stdout=subprocess.DEVNULL, check=True)

    took = [_seconds(probe) for _ in range(2 * rounds)]
    return [
        Figure(name="agent, size", value=len(built.data), unit="bytes", peer=None, reach="<300000"),
        Figure(
            name="agent, probe answered", value=statistics.median(took), unit="s", peer=None, reach="<0.150"
        ),
    ], f"agent: {len(built.data)} bytes, probe answered in {_spread(took)}"


def main() -> None:
    """Measure, print one line for each row, and end with the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print only the JSON line")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--devices", type=int, default=50)
    parser.add_argument("--rows", default=",".join(ROWS))
    asked = parser.parse_args()
    rows: dict[str, Callable[[Sshd, Path], tuple[list[Figure], str]]] = {
        "push": lambda server, folder: push(server, folder, asked.rounds),
        "slow": lambda server, folder: slow(server, folder, asked.rounds),
        "redeploy": lambda server, folder: redeploy(server, folder, asked.rounds),
        "fleet": lambda server, folder: fleet(server, folder, min(asked.rounds, 3), asked.devices),
        "agent": lambda _, folder: agent(folder, asked.rounds),
    }
    measured: list[Figure] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)
        with sshd(folder) as server:
            for name in asked.rows.split(","):
                figures, line = rows[name](server, folder)
                measured += figures
                print(line, file=sys.stderr if asked.json else sys.stdout, flush=True)
    print(last_line(measured))


if __name__ == "__main__":
    main()
