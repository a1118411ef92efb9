"""Wheels that fit by their tags and do not start on the device: the next ones are tried, once."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeq.errors import DeviceUnsupported
from edgeq.fleet.connect import open_agent
from edgeq.fleet.deploy import deploy_one, plan_one
from edgeq.fleet.facts import Facts
from edgeq.fleet.operations import prune, status
from edgeq.fleet.runtimes import platform_tags, wheels
from edgeq.fleet.runtimes.platform_tags import Choice
from edgeq.fleet.split import Split, SplitArm, end_split, start_split
from edgeq.values import Device
from tests.fleet.servers import Read, Server

BROKEN = Choice(requirements=("tflite-runtime-for-another-processor",))
WHY = "libm.so.6: version GLIBC_2.99 not found"


@pytest.fixture
def broken_first(monkeypatch: pytest.MonkeyPatch, site: Path) -> Callable[[Facts], str]:
    """Let the best choice be a cached wheel that does not start; returns its runtime's digest."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("tflite_runtime/__init__.py", f"raise ImportError({WHY!r})\n")
    name = "tflite_runtime-9.9-py3-none-any.whl"
    sha256 = hashlib.sha256(data.getvalue()).hexdigest()
    real = platform_tags.choices_for

    def choices(facts: Facts) -> tuple[Choice, ...]:
        folder = site / ".edgeq" / "wheels"
        (folder / name).write_bytes(data.getvalue())
        entry = {"name": name, "sha256": sha256, "size_bytes": len(data.getvalue())}
        key = wheels.cache_key(platform_tags.target_of("pi", facts), BROKEN)
        body = {"schema": "edgeq.wheels/1", "wheels": [entry]}
        (folder / f"{key}.json").write_text(json.dumps(body))
        return (BROKEN, *real(facts))

    monkeypatch.setattr(wheels, "choices_for", choices)

    def digest(facts: Facts) -> str:
        return wheels.resolve(facts, site / ".edgeq" / "wheels").digest

    return digest


@pytest.fixture
def device(loopback_server: Server, site: Path) -> Device:
    made = loopback_server.enrol(site, name="next", home=".edgeq-next")
    prune(made, dry_run=False)
    return made


def facts_of(device: Device) -> Facts:
    with open_agent(device) as client:
        return client.facts()


@pytest.mark.slow
def test_the_next_wheels_are_tried_and_the_failure_is_remembered(
    device: Device, site: Path, read: Read, broken_first: Callable[[Facts], str]
) -> None:
    first = read("first")
    refused = broken_first(facts_of(device))
    shown = plan_one(device, first, workspace=site)
    assert shown.runtime.digest == refused

    done = deploy_one(device, first, workspace=site, planned=shown)
    assert done.changed
    (passed,) = done.rejected
    assert BROKEN.text in passed
    assert WHY in passed
    assert done.to_dict()["passed_runtimes"] == [passed]
    (step,) = [step for step in done.plan.steps if step.part.value == "runtime"]
    assert WHY in step.reason, "the plan that was carried out says why it is not the best one"
    assert status(device).models["double"].current == first.release
    assert status(device).models["double"].runtime != refused

    assert list(facts_of(device).refused) == [refused]
    again = deploy_one(device, first, workspace=site)
    assert again.plan.is_empty
    assert not again.changed

    # What is staged beside it passes over the same ones: no less than a deploy would.
    prune(device, dry_run=False)
    second = read("second")
    split = Split(
        experiment="e-1",
        model="double",
        base=first.release,
        arms=(
            SplitArm(name="a", release=first.release, weight=0.5),
            SplitArm(name="b", release=second.release, weight=0.5),
        ),
        salt="s",
        each_call=True,
    )
    started = start_split(device, second, split, workspace=site)
    assert (started.staged, started.divided) == (True, True)
    assert list(facts_of(device).refused) == [refused]
    end_split(device, experiment="e-1", model="double", release=second.release)

    prune(device, dry_run=False)
    assert facts_of(device).refused == {}
    assert plan_one(device, first, workspace=site).runtime.digest == refused, "a prune lets it be tried again"


@pytest.mark.slow
def test_where_none_starts_the_error_says_what_was_tried_and_what_to_do(
    loopback_server: Server,
    site: Path,
    tmp_path: Path,
    read: Read,
    monkeypatch: pytest.MonkeyPatch,
    broken_first: Callable[[Facts], str],
) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    python = str(tmp_path / "bare" / "bin" / "python")
    bare = loopback_server.enrol(site, name="bare", python=python, home=".edgeq-bare")
    broken_first(facts_of(bare))
    broken: Callable[[Facts], tuple[Choice, ...]] = vars(wheels)["choices_for"]  # as the fixture set it
    monkeypatch.setattr(wheels, "choices_for", lambda facts: broken(facts)[:1])
    with pytest.raises(DeviceUnsupported) as caught:
        deploy_one(bare, read("second"), workspace=site)
    assert caught.value.reported_code == "EQ503"
    for words in ("no module imports and infers", "no wheels were sent", BROKEN.text, WHY):
        assert words in caught.value.message
    assert "install ai-edge-litert or tflite-runtime on the device" in caught.value.hint
    assert status(bare).models == {}
