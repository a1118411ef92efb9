"""`edgeq ab` over real devices: two releases side by side, real calls and windows, a decision on record."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.store import Store
from edgeq.testing.loopback import LoopbackDevice, loopback_device
from tests.fleet.cli import Cli

pytestmark = pytest.mark.convert  # the releases really serve

A_RIGHT = 0.9


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


def add(cli: Cli, server: Any, name: str, *more: str) -> None:
    address = ["--host", server.host, "--port", str(server.port), "--user", server.user]
    cli.text("devices", "add", name, *address, "--identity", str(server.identity), *more)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackDevice]:
    """A device whose runtime is built once."""
    with loopback_device(tmp_path_factory.mktemp("pi")) as device:
        yield device


@pytest.fixture
def pi(cli: Cli, site: Path, bundles: dict[str, Path], running: LoopbackDevice) -> LoopbackDevice:
    """A device on which the first release serves, and that knows of no later one."""
    folder = running.home / ".edgeq"
    shutil.rmtree(folder / "models" / "double", ignore_errors=True)
    for path in folder.glob("outbox.db*"):
        path.unlink()
    trust = folder / "trust.json"
    if trust.exists():
        trust.write_text(json.dumps({**json.loads(trust.read_text()), "counters": {}}))
    add(cli, running, "pi")
    cli.text("deploy", str(bundles["first"]), "--to", "pi")
    return running


def state(device: Any) -> Any:
    """Return what the agent's folder says of the model."""
    folder = device.home / ".edgeq" / "models" / "double"
    split = folder / "split.json"
    return {
        "current": (folder / "current").readlink().name,
        "split": json.loads(split.read_text()) if split.exists() else None,
        "staged": list(json.loads((folder / "staged.json").read_text())["releases"])
        if (folder / "staged.json").exists()
        else [],
    }


def serve(device: Any, rounds: int, right: Callable[[str], float], seed: int = 0) -> None:
    """Be the application: calls, and later the word whether each answer was right."""
    from edgeq_agent import Runtime

    random = np.random.default_rng(seed)
    for _ in range(rounds):
        with Runtime("double", str(device.home / ".edgeq")) as rt:
            for _ in range(24):
                answer = rt.run(random.normal(size=(1, 4)).astype(np.float32), ticket=True)
                rt.feedback(str(answer.ticket), bool(random.random() < right(str(answer.arm))))


@pytest.mark.slow
def test_a_worse_release_is_found_and_rejected_with_a_record(
    cli: Cli, pi: LoopbackDevice, site: Path, bundles: dict[str, Path]
) -> None:
    before = state(pi)["current"]
    start = ("ab", "start", str(bundles["second"]), "--to", "pi", "--share", "0.5")
    begun = cli.json(*start)
    assert (begun["state"], begun["devices"][0]["staged"], begun["release_a"]) == ("running", True, before)
    assert begun["devices"][0]["health"]["latency_p95_ns"] > 0
    there = state(pi)
    assert (there["current"], there["staged"]) == (before, [begun["release_b"]])
    assert there["split"]["experiment"] == begun["experiment"]
    # Again: nothing is sent or changed, and it is the same experiment.
    again = cli.json(*start)
    assert (again["experiment"], again["devices"][0]["staged"]) == (begun["experiment"], False)
    assert not again["devices"][0]["divided"]
    assert "no conclusion yet" in cli.text("ab", "status")
    why = ("--because", "it is worse")
    assert "nothing shows" in cli.refused("ab", "decide", "--reject", *why, status=3, code="EQ833")

    serve(pi, 150, lambda arm: A_RIGHT if arm == "a" else A_RIGHT - 0.5)
    cli.text("collect", "pi")
    shown = cli.json("ab", "status")
    metrics = {metric["metric"]: metric for metric in shown["metrics"]}
    assert metrics["feedback"]["finding"] == "worse"
    low, high = metrics["feedback"]["interval"]
    assert low < -0.5 < high < 0
    assert {metrics[name]["finding"] for name in ("errors", "confidence")} == {"not shown to differ"}
    assert "worse" not in (metrics["latency_p50"]["finding"], metrics["latency_p95"]["finding"])
    assert shown["counted"]["a"]["labelled"] + shown["counted"]["b"]["labelled"] == 150 * 24
    assert shown["objections"]["reject"] == []
    out = cli.text("ab", "status", begun["experiment"])
    assert "verdict: B is worse in right answers" in out
    cli.refused("ab", "decide", "--promote", "--reject", "--because", "both", status=2, code="EQ101")
    line = cli.refused("ab", "decide", "--promote", "--because", "hope", status=3, code="EQ833")
    assert "B is shown to be worse in right answers" in line

    decided = cli.json("ab", "decide", "--reject", *why)
    assert decided["state"] == "rejected"
    ending = decided["ending"]
    assert (ending["because"], ending["anyway"], ending["objections"]) == ("it is worse", False, [])
    assert ending["judged"]["data_sha256"] == shown["data_sha256"]
    assert ending["judged"]["metrics"] == shown["metrics"]
    assert ending["by"] == begun["started_by"]
    assert state(pi) == {"current": before, "split": None, "staged": []}
    assert cli.json("prune", "--on", "pi")["devices"][0]["removed"]["releases"] == [begun["release_b"]]
    cli.refused("ab", "decide", "--promote", "--because", "x", status=1, code="EQ834")
    with Store.open(site) as store:
        events = [record.event for record in store.experiments(begun["experiment"])]
    assert events == ["started", "rejected", "closed"]
    assert cli.json("ab", "list")["experiments"][0]["ending"]["because"] == "it is worse"


@pytest.mark.slow
def test_an_equal_release_shows_nothing_and_is_promoted_through_the_gate(
    cli: Cli, pi: LoopbackDevice, bundles: dict[str, Path]
) -> None:
    before = state(pi)["current"]
    allow = ("--worse-by", "0.3", "--slower-by", "9")
    begun = cli.json("ab", "start", str(bundles["second"]), "--to", "pi", "--share", "0.5", *allow)
    bundles_gone = bundles["second"].rename(bundles["second"].with_suffix(".away"))
    try:
        for number in range(3):
            serve(pi, 80, lambda _arm: A_RIGHT, seed=number)
            cli.text("collect", "pi")
            shown = cli.json("ab", "status")
            quiet = {metric["finding"] for metric in shown["metrics"] if metric["scale"] == "difference"}
            assert quiet <= {"not shown to differ", "not known yet"}, shown
        decided = cli.json("ab", "decide", "--promote", "--because", "no worse", "--yes")
    finally:
        bundles_gone.rename(bundles["second"])
    assert (decided["state"], decided["open"]) == ("promoted", [])
    assert not decided["ending"]["anyway"]
    assert state(pi) == {"current": begun["release_b"], "split": None, "staged": []}
    entry = cli.json("status")["devices"][0]["models"]["double"]
    assert (entry["previous"], entry["state"]) == (before, "committed")
    assert cli.json("rollback", "double", "--on", "pi")["devices"][0]["release"] == before


@pytest.mark.slow
def test_deciding_against_the_data_is_on_record(
    cli: Cli, pi: LoopbackDevice, bundles: dict[str, Path]
) -> None:
    begun = cli.json("ab", "start", str(bundles["second"]), "--to", "pi")
    promote = ("ab", "decide", "--promote", "--because", "the old one leaks")
    assert "too little feedback" in cli.refused(*promote, status=3, code="EQ833")
    ending = cli.json(*promote, "--anyway")["ending"]
    assert ending["anyway"]
    assert any("too little feedback" in line for line in ending["objections"])
    assert state(pi)["current"] == begun["release_b"]


@pytest.mark.slow
def test_a_promotion_in_stages_is_a_rollout(cli: Cli, pi: LoopbackDevice, bundles: dict[str, Path]) -> None:
    begun = cli.json("ab", "start", str(bundles["second"]), "--to", "pi")
    promote = ("ab", "decide", "--promote", "--because", "x", "--anyway", "--stages", "all")
    rollout = cli.json(*promote)
    assert (rollout["schema"], rollout["state"]) == ("edgeq.rollout/1", "done")
    listed = cli.json("ab", "list")["experiments"][0]
    assert (listed["state"], listed["open"]) == ("promoted", [])
    assert state(pi) == {"current": begun["release_b"], "split": None, "staged": []}


@pytest.mark.slow
def test_stop_gives_everything_back(cli: Cli, pi: LoopbackDevice, bundles: dict[str, Path]) -> None:
    before = state(pi)["current"]
    begun = cli.json("ab", "start", str(bundles["second"]), "--to", "pi")
    cli.refused("ab", "start", str(bundles["second"]), "--to", "pi", "--share", "0.3", status=1, code="EQ832")
    cli.refused("ab", "start", str(bundles["padded"]), "--to", "pi", status=1, code="EQ832")
    assert cli.json("ab", "stop", "--because", "wrong labels")["state"] == "stopped"
    assert state(pi) == {"current": before, "split": None, "staged": []}
    assert cli.json("ab", "stop", begun["experiment"])["ending"]["because"] == "wrong labels"
    # Over and gone: the next one may begin, under another name.
    assert cli.json("ab", "start", str(bundles["second"]), "--to", "pi")["experiment"].endswith("-2")


@pytest.mark.slow
def test_a_start_that_was_killed_anywhere_goes_on(
    cli: Cli, pi: LoopbackDevice, bundles: dict[str, Path], site: Path
) -> None:
    start = ["ab", "start", str(bundles["second"]), "--to", "pi"]
    run = "import sys; from edgeq.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", run, "--workspace", str(site), *start]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        end = time.monotonic() + 60
        while time.monotonic() < end and process.poll() is None:
            with Store.open(site) as store:
                if store.experiments():
                    break
            time.sleep(0.02)
        process.kill()
    with Store.open(site) as store:
        (begun,) = store.experiments()
    again = cli.json(*start)
    assert (again["experiment"], again["devices"][0]["ok"]) == (begun.experiment, True)
    assert state(pi)["split"]["experiment"] == begun.experiment
    with Store.open(site) as store:
        assert [record.event for record in store.experiments()] == ["started"]


@pytest.mark.slow
def test_two_starts_at_once_are_one_experiment(
    cli: Cli, pi: LoopbackDevice, bundles: dict[str, Path], site: Path
) -> None:
    run = "import sys; from edgeq.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", run, "--workspace", str(site), "ab", "start", str(bundles["second"])]
    processes = [
        subprocess.Popen([*command, "--to", "pi", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    ended = [(*process.communicate(timeout=120), process.returncode) for process in processes]
    assert [status for _, _, status in ended] == [0, 0], ended
    documents = [json.loads(out) for out, _, _ in ended]
    assert len({one["experiment"] for one in documents}) == 1
    assert sorted(one["devices"][0]["divided"] for one in documents) == [False, True]
    with Store.open(site) as store:
        assert [record.event for record in store.experiments()] == ["started"]
    assert state(pi)["split"]["experiment"] == documents[0]["experiment"]
    cli.json("ab", "stop")


@pytest.mark.slow
def test_a_start_that_is_overtaken_by_a_stop_leaves_nothing(
    cli: Cli, pi: LoopbackDevice, bundles: dict[str, Path], site: Path
) -> None:
    before = state(pi)["current"]
    run = "import sys; from edgeq.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", run, "--workspace", str(site), "ab", "start", str(bundles["second"])]
    with (pi.home / ".edgeq" / "lock").open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # a call that is at work there: the start waits behind it
        with subprocess.Popen([*command, "--to", "pi"], stderr=subprocess.PIPE, text=True) as process:
            end = time.monotonic() + 60
            while time.monotonic() < end and process.poll() is None:
                with Store.open(site) as store:
                    if store.experiments():
                        break
                time.sleep(0.02)
            # Nothing of it is on the device yet, so there is nothing to take away.
            assert cli.json("ab", "stop", "--because", "a mistake")["open"] == []
            fcntl.flock(held, fcntl.LOCK_UN)
            _, error = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "error[EQ834]: " in error
    assert "was stopped while it was started here" in error
    assert state(pi) == {"current": before, "split": None, "staged": []}


@pytest.mark.slow
def test_a_split_that_was_damaged_there_goes_with_its_experiment(
    cli: Cli, pi: LoopbackDevice, bundles: dict[str, Path]
) -> None:
    before = state(pi)["current"]
    cli.json("ab", "start", str(bundles["second"]), "--to", "pi")
    (pi.home / ".edgeq" / "models" / "double" / "split.json").write_text("{")
    (entry,) = cli.json("ab", "stop")["devices"]
    assert (entry["cleared"], entry["unstaged"]) == (True, True)
    assert state(pi) == {"current": before, "split": None, "staged": []}


@pytest.mark.slow
def test_an_experiment_that_cannot_begin_is_refused_with_its_code(
    cli: Cli, pi: LoopbackDevice, bundles: dict[str, Path], tmp_path: Path
) -> None:
    def start(name: str, *more: str, status: int = 1, code: str) -> str:
        return cli.refused("ab", "start", str(bundles[name]), "--to", "pi", *more, status=status, code=code)

    assert "at least 2 devices" in start("second", "--by", "devices", code="EQ835")
    assert "serves" in start("first", code="EQ836")
    start("second", "--share", "1", status=2, code="EQ101")
    start("second", "--salt", "a\nb", status=2, code="EQ101")
    for option in ("--share", "--alpha", "--worse-by", "--slower-by"):
        start("second", option, "nan", status=2, code="EQ101")
    cli.refused("ab", "status", status=1, code="EQ831")
    cli.refused("ab", "status", "nobody", status=1, code="EQ831")
    cli.refused("ab", "decide", "--because", "x", status=2, code="EQ101")
    cli.refused("ab", "decide", "--promote", status=2, code="EQ101")
    # A release that fails its checks on the device does not serve, and the device reports the reason.
    assert "max_steps" in start("wrong", code="EQ504") or "golden" in cli.err or "output" in cli.err
    assert state(pi)["split"] is None
    cli.text("ab", "stop")
    with loopback_device(tmp_path / "bare") as bare:
        add(cli, bare, "bare")
        line = cli.refused("ab", "start", str(bundles["second"]), "--to", "all", status=1, code="EQ836")
        assert "bare" in line
        cli.text("deploy", str(bundles["second"]), "--to", "bare")
        line = cli.refused("ab", "start", str(bundles["padded"]), "--to", "all", status=1, code="EQ837")
        assert "different releases" in line


@pytest.mark.slow
def test_a_deploy_of_something_else_ends_the_split_and_leaves_it_ended(
    cli: Cli, pi: LoopbackDevice, bundles: dict[str, Path]
) -> None:
    cli.json("ab", "start", str(bundles["second"]), "--to", "pi")
    padded = cli.json("deploy", str(bundles["padded"]), "--to", "pi")["devices"][0]["release"]
    assert (state(pi)["current"], state(pi)["split"]) == (padded, None)
    cli.refused("ab", "start", str(bundles["second"]), "--to", "pi", status=1, code="EQ535")
    cli.refused(
        "ab", "decide", "--promote", "--anyway", "--because", "x", "--yes", status=1, code="EQ535"
    )  # its counter is below what was committed since
    assert state(pi)["current"] == padded


@pytest.mark.slow  # a device that is gone is tried again, each time later
def test_devices_of_both_arms_and_one_that_comes_back_later(
    cli: Cli, pi: LoopbackDevice, bundles: dict[str, Path], site: Path, tmp_path: Path
) -> None:
    with loopback_device(tmp_path / "other") as other:
        add(cli, other, "other")
        cli.text("deploy", str(bundles["first"]), "--to", "other")
        port = other.port
    start = ("ab", "start", str(bundles["second"]), "--to", "all", "--by", "devices", "--share", "0.5")
    begun = cli.json(*start, status=4)
    assert [entry["ok"] for entry in sorted(begun["devices"], key=lambda entry: entry["device"])] == [
        False,
        True,
    ]
    with loopback_device(tmp_path / "other", port=port) as other:
        again = cli.json(*start)
        assert again["experiment"] == begun["experiment"]
        arms = again["arms"]
        assert sorted(arms.values()) == ["a", "b"]
        served = {"pi": pi, "other": other}
        for name, arm in arms.items():
            weights = {one["name"]: one["weight"] for one in state(served[name])["split"]["arms"]}
            assert weights == {"a": float(arm == "a"), "b": float(arm == "b")}
            serve(served[name], 2, lambda _arm: 1.0)
        cli.text("collect", "--all")
        shown = cli.json("ab", "status")
        assert (shown["verdict"], shown["windows"], shown["silent"]) == ("no conclusion yet", 4, [])
        assert shown["counted"]["a"]["inferences"] == shown["counted"]["b"]["inferences"] == 48
        cli.json("ab", "stop")
        assert [state(device)["split"] for device in served.values()] == [None, None]


@pytest.mark.sshd
@pytest.mark.parametrize("transport", ["paramiko", "openssh"])
@pytest.mark.slow
def test_an_experiment_on_an_openssh_server(
    cli: Cli, sshd_server: Any, site: Path, bundles: dict[str, Path], transport: str
) -> None:
    add(cli, sshd_server, "ssh", "--transport", transport)
    known = cli.json("status")["devices"][0]["models"].get("double")
    if known is None:
        cli.text("deploy", str(bundles["first"]), "--to", "ssh")
        known = cli.json("status")["devices"][0]["models"]["double"]
    floor = known["current"]
    newest = "padded"
    begun = cli.json("ab", "start", str(bundles[newest]), "--to", "ssh", "--share", "0.25")
    entry = cli.json("status")["devices"][0]["models"]["double"]
    assert (entry["current"], entry["in_force"], list(entry["staged"])) == (floor, True, [begun["release_b"]])
    assert [arm["weight"] for arm in entry["split"]["arms"]] == [0.75, 0.25]
    cli.json("ab", "stop")
    entry = cli.json("status")["devices"][0]["models"]["double"]
    assert (entry["current"], entry["split"], entry["staged"]) == (floor, None, {})
