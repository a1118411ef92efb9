"""Real power cuts: a virtual machine is killed while a runtime or a release is installed, again and again."""

from __future__ import annotations

import io
import os
import random
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edgeq.bundle.archive import Bundle
from edgeq.errors import EdgeqError
from edgeq.fleet.apply import OnProgress, Progress
from edgeq.fleet.deploy import DeployResult, deploy_one
from edgeq.fleet.facts import Facts
from edgeq.fleet.operations import infer, status
from edgeq.fleet.runtimes import wheels
from edgeq.fleet.runtimes.platform_tags import Choice
from edgeq.fleet.ssh.transport import connect
from edgeq.fleet.transport import Limits
from edgeq.testing.tiny_bundle import write_tiny_bundle
from edgeq.values import Device
from tests.lab import publisher
from tests.lab.session import Lab
from tests.lab.vm import Machine, machine

pytestmark = [pytest.mark.vm, pytest.mark.timeout(3 * 3600)]
# Read once: the tests take EDGEQ_* out of their environment.
CUTS = int(os.environ.get("EDGEQ_LAB_CUTS") or 20)
SEED = int(os.environ.get("EDGEQ_LAB_SEED") or 1)

# Two runtimes, so that there is always one to install while the other serves.
RUNTIMES = (
    Choice(requirements=("tflite-runtime", "numpy<2")),
    Choice(requirements=("ai-edge-litert>=2.1.1", "numpy")),
)
# Where in an activation the power goes: after its step, and how long after, of how long all of it takes.
MOMENTS = (("staged", 1.0), ("verified", 0.1), ("activating", 0.05))
LIMITS = Limits(first_s=60, silence_s=60, total_s=300)


@dataclass(kw_only=True)
class Site:
    """The machine, what serves there, and how long things took when nothing was cut."""

    machine: Machine
    device: Device
    workspace: Path
    serving: Bundle
    runtime: int = 0
    install_s: float = 0.0
    activate_s: float = 0.0

    def deploy(self, bundle: Bundle, on_event: OnProgress | None = None) -> DeployResult:
        return deploy_one(self.device, bundle, workspace=self.workspace, on_event=on_event, timeout_s=60)

    def shell(self, script: str) -> list[str]:
        with connect(self.device, timeout_s=60) as transport:
            running = transport.run(["sh", "-c", script], stdin=(), limits=LIMITS)
            lines = [line.decode() for line in running.lines()]
            ended = running.ended()
            assert ended.exit_status == 0, ended.stderr
            return lines


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the host choose one of the two runtimes from now on."""

    def choose(number: int) -> None:
        def only(facts: Facts) -> tuple[Choice, ...]:
            return (RUNTIMES[number],)

        monkeypatch.setattr(wheels, "choices_for", only)

    return choose


@pytest.fixture
def vm_site(lab: Lab, site: Path, tmp_path: Path, chosen: Callable[[int], None]) -> Iterator[Site]:
    """A machine that serves a first release on the first runtime."""
    with machine(lab.scratch / "machine", lab.identity) as running:
        device = running.access.enrol(site, timeout_s=60).device
        first = write_tiny_bundle(tmp_path / "0.eqb", seed=0, workspace=publisher.folder())
        made = Site(machine=running, device=device, workspace=site, serving=first)
        chosen(0)
        marks: dict[str, float] = {}
        started_s = time.monotonic()
        made.deploy(first, lambda progress: _mark(marks, progress))
        made.install_s = time.monotonic() - started_s
        made.activate_s = time.monotonic() - marks["staged"]
        yield made


def _mark(marks: dict[str, float], progress: Progress) -> None:
    marks.setdefault(progress.reached, time.monotonic())


def test_after_every_power_cut_a_model_serves(
    vm_site: Site, chosen: Callable[[int], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moments = random.Random(SEED)  # noqa: S311 - moments, not secrets
    for number in range(1, CUTS + 1):
        path = tmp_path / f"{number}.eqb"
        bundle = write_tiny_bundle(path, seed=number, padding_bytes=300_000, workspace=publisher.folder())
        line = _round(vm_site, bundle, moments, chosen, number)
        with capsys.disabled():
            sys.stdout.write(f"\ncut {number:2}/{CUTS}: {line}")
            sys.stdout.flush()


def _round(
    site: Site, bundle: Bundle, moments: random.Random, chosen: Callable[[int], None], number: int
) -> str:
    old, installs = site.serving, number % 2 == 1
    if installs:
        site.runtime = 1 - site.runtime
        chosen(site.runtime)
        _forget_other_runtimes(site)
        how = _cut_within(site, bundle, moments.uniform(0, 1.3 * site.install_s), after=None)
    else:
        step, share = MOMENTS[number // 2 % len(MOMENTS)]
        how = _cut_within(site, bundle, moments.uniform(0, share * site.activate_s), after=step)
    console = site.machine.console.stat().st_size
    boot_s = site.machine.boot()
    console_text = site.machine.console.read_bytes()[console:].decode(errors="replace")
    assert "EXT4-fs error" not in console_text
    assert "EXT4-fs (vda): mounted filesystem" in console_text
    recovered = "recovery complete" in console_text
    serves = status(site.device).models["double"].current
    assert serves in (old.release, bundle.release), "old or new, and nothing else"
    _check_answers(site)
    _check_blobs(site)
    outcome = site.deploy(bundle)
    assert status(site.device).models["double"].current == bundle.release
    _check_answers(site)
    site.serving = bundle
    what = f"{'install' if installs else 'activate'} {how}"
    which = "new" if serves == bundle.release else "old"
    return (
        f"{what}; up after {boot_s:.1f} s, journal {'recovered' if recovered else 'clean'}; {which} release "
        f"served and inferred; again: {outcome.sent_bytes} bytes in {outcome.duration_s:.1f} s, converged"
    )


def _cut_within(site: Site, bundle: Bundle, seconds: float, *, after: str | None) -> str:
    """Deploy, and cut the power so many seconds after the start, or after a step; return what was reached."""
    begun = threading.Event()
    steps: list[str] = []

    def on_event(progress: Progress) -> None:
        step = progress.reached or "sent"
        if not steps or steps[-1] != step:
            steps.append(step)
        if step == after:
            begun.set()

    ended: list[str] = []

    def deploy() -> None:
        try:
            site.deploy(bundle, on_event)
            ended.append("done before it")
        except EdgeqError as error:
            ended.append(error.reported_code)

    thread = threading.Thread(target=deploy)
    thread.start()
    if after is not None:
        assert begun.wait(300), f"{after} was not reached: {steps} {ended}"
    time.sleep(seconds)
    site.machine.cut()
    thread.join(120)
    assert not thread.is_alive(), "the deploy does not notice that its device is gone"
    start = f"{seconds:.2f} s after {after or 'its start'}"
    return f"cut {start} (reached: {steps[-1] if steps else 'nothing'}; the host saw {ended[0]})"


def _forget_other_runtimes(site: Site) -> None:
    """Remove what does not serve, with its wheels, so that there is something to install."""
    used = status(site.device).models["double"].runtime
    serving = set(site.serving.blobs)
    names = site.shell("ls ~/.edgeq/blobs/sha256")
    for name in names:
        if name not in serving:
            site.shell(f"rm ~/.edgeq/blobs/sha256/{shlex.quote(name)}")
    site.shell(
        f"cd ~/.edgeq/runtime && for r in *; do [ $r = {shlex.quote(str(used))} ] || rm -r $r; done; sync"
    )


def _check_answers(site: Site) -> None:
    samples = np.random.default_rng(3).normal(size=(4, 4)).astype(np.float32)
    buffer = io.BytesIO()
    np.savez(buffer, input_0=samples)
    answer = infer(site.device, "double", buffer.getvalue(), outputs=True).document
    np.testing.assert_allclose(answer["outputs"], 2 * samples, rtol=1e-6)


def _check_blobs(site: Site) -> None:
    for line in site.shell("cd ~/.edgeq/blobs/sha256 && sha256sum *"):
        digest, name = line.split()
        assert digest == name, f"the blob {name} has other content"
