"""Boot services with a real systemd: after a power cut and after a clean restart."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgeq.bundle.archive import Bundle
from edgeq.errors import EdgeqError, LinkLost
from edgeq.fleet import autostart
from edgeq.fleet.autostart import StartKind
from edgeq.fleet.deploy import deploy_one
from edgeq.fleet.facts import Facts
from edgeq.fleet.runtimes import wheels
from edgeq.fleet.runtimes.platform_tags import Choice
from edgeq.fleet.ssh.transport import connect
from edgeq.fleet.transport import Limits
from edgeq.testing.tiny_bundle import write_tiny_bundle
from edgeq.values import Device
from tests.lab import publisher
from tests.lab.roots import USER
from tests.lab.session import Lab
from tests.lab.vm import Machine, machine

pytestmark = [pytest.mark.vm, pytest.mark.timeout(3600)]
LIMITS = Limits(first_s=90, silence_s=90, total_s=300)
SOAK_S = 3600.0
PORT = 8123
USER_HOME = f"/home/{USER}"

# Asks what serves over HTTP for twice (1, 2, 3, 4), without any verb: those would settle things themselves.
_ASK = """
import json, socket, sys
from tests.lab.session import Lab
kind, where = sys.argv[1:3]
link = socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET)
link.connect(where if kind == "unix" else ("127.0.0.1", int(where)))
tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}
body = json.dumps({"inputs": [tensor]}).encode()
head = "POST /v2/models/double/infer HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n"
head += "Content-Type: application/json\\r\\n"
link.sendall((head + "Content-Length: %d\\r\\n\\r\\n" % len(body)).encode() + body)
data = b""
while True:
    piece = link.recv(65536)
    if not piece:
        break
    data += piece
print(json.dumps(json.loads(data.partition(b"\\r\\n\\r\\n")[2])["outputs"][0]["data"]))
"""


@dataclass(kw_only=True)
class Site:
    """The machine, and two homes of the agent on it: one that serves, and one that is empty."""

    machine: Machine
    device: Device
    workspace: Path
    say: Callable[[str], None]

    @property
    def home(self) -> str:
        return f"{USER_HOME}/.edgeq"

    @property
    def empty(self) -> Device:
        return dataclasses.replace(self.device, home=".edgeq-empty")

    def shell(self, *argv: str, check: bool = True) -> list[str]:
        with connect(self.device, timeout_s=60) as transport:
            running = transport.run(list(argv), stdin=(), limits=LIMITS)
            lines = [line.decode() for line in running.lines()]
            ended = running.ended()
            assert not check or ended.exit_status == 0, (argv, lines, ended.stderr)
            return lines

    def current(self) -> str:
        """The release that the link names; no verb is run."""
        (line,) = self.shell("readlink", f"{self.home}/models/double/current")
        return line.rpartition("/")[2]

    def state(self) -> str:
        lines = self.shell("cat", f"{self.home}/models/double/state.json")
        return str(json.loads("".join(lines))["state"])

    def started(self) -> dict[str, Any]:
        lines = self.shell("cat", f"{self.home}/service/started.json")
        document: dict[str, Any] = json.loads("".join(lines))
        return document

    def boot_id(self) -> str:
        (line,) = self.shell("cat", "/proc/sys/kernel/random/boot_id")
        return line.strip()

    def answers(self, kind: str, where: str) -> bool:
        lines = self.shell("python3", "-c", _ASK, kind, where, check=False)
        return bool(lines) and json.loads(lines[-1]) == [2.0, 4.0, 6.0, 8.0]

    def until(self, what: str, check: Callable[[], bool], seconds: float = 300) -> float:
        """Wait until something holds; return the seconds that took."""
        began_s = time.monotonic()
        while not check():
            waited_s = time.monotonic() - began_s
            assert waited_s < seconds, f"{what}: not within {seconds} s; {self.service_status()}"
            time.sleep(1)
        return time.monotonic() - began_s

    def service_status(self) -> str:
        try:
            return json.dumps(autostart.status(self.device, timeout_s=60).document)
        except EdgeqError as error:
            return error.message


@pytest.fixture
def vm_site(
    lab: Lab, site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Site]:
    def only(facts: Facts) -> tuple[Choice, ...]:
        return (Choice(requirements=("tflite-runtime", "numpy<2")),)

    monkeypatch.setattr(wheels, "choices_for", only)

    def say(line: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{line}")
            sys.stdout.flush()

    with machine(lab.scratch / "services", lab.identity) as running:
        device = running.access.enrol(site, timeout_s=60).device
        yield Site(machine=running, device=device, workspace=site, say=say)


def test_services_settle_a_trial_after_a_power_cut_and_survive_a_clean_restart(
    vm_site: Site, tmp_path: Path
) -> None:
    site = vm_site
    bundles = [
        write_tiny_bundle(tmp_path / f"{seed}.eqb", seed=seed, workspace=publisher.folder())
        for seed in range(3)
    ]
    deploy_one(site.device, bundles[0], workspace=site.workspace, timeout_s=60)
    user = site.device.user

    # Linger off: the agent lets the user's services run without a login, or says that it cannot.
    site.shell("sudo", "-n", "loginctl", "disable-linger", user)
    answer = autostart.enable(site.device, timeout_s=60, models=["double"]).document
    assert (answer["choice"], answer["kind"]) == ("systemd-user", "systemd-user")
    assert (answer["at_boot"], answer["linger"]) == (True, True)
    assert [unit["active"] for unit in answer["units"]] == ["active", "active"]
    assert not answer["seen_at_boot"]
    site.say(f"user unit enabled, linger was turned on: {[unit['unit'] for unit in answer['units']]}")
    again = autostart.enable(site.device, timeout_s=60, models=["double"]).document
    assert again["changed"] is False, "enabling again changes nothing"
    site.until("the user unit serves", lambda: site.answers("unix", socket_of(site)))

    _trial_cut_and_settled(site, bundles[0], bundles[1], "user unit", "unix", socket_of(site))

    # The same home by a system unit, and an empty one by a user unit beside it.
    answer = autostart.enable(
        site.device, timeout_s=60, kind=StartKind.SYSTEMD_SYSTEM, models=["double"], port=PORT
    ).document
    assert (answer["kind"], answer["at_boot"]) == ("systemd-system", True)
    assert all(unit["load"] == "loaded" and unit["active"] == "active" for unit in answer["units"])
    left = site.shell("sh", "-c", "ls ~/.config/systemd/user ~/.config/systemd/user/default.target.wants")
    assert [line for line in left if line.startswith("edgeq")] == [], "the user units are gone"
    beside = autostart.enable(site.empty, timeout_s=60, kind=StartKind.SYSTEMD_USER).document
    assert beside["at_boot"] is True
    assert beside["units"][0]["unit"] != "edgeq.service", "two homes do not meet"
    site.say(f"system unit enabled in its place: {[unit['unit'] for unit in answer['units']]}")

    _trial_cut_and_settled(site, bundles[0], bundles[2], "system unit", "tcp", str(PORT))

    _restart_cleanly(site)
    for device, kind in ((site.device, "systemd-system"), (site.empty, "systemd-user")):
        document = autostart.status(device, timeout_s=60).document
        assert (document["kind"], document["at_boot"], document["whole"]) == (kind, True, True)
        assert document["seen_at_boot"]
        assert document["ran_in_this_boot"]
        assert document["last"]["ok"]
    assert site.current() == bundles[0].release
    site.until("the system unit serves after a clean restart", lambda: site.answers("tcp", str(PORT)))
    site.say("after a clean restart both units ran, and the system unit serves")

    # What serves is started again when it dies.
    unit = autostart.status(site.device, timeout_s=60).document["units"][1]["unit"]
    site.shell("sudo", "-n", "systemctl", "kill", "--signal=KILL", unit)
    site.until("it serves again after kill -9", lambda: site.answers("tcp", str(PORT)))
    assert autostart.status(site.device, timeout_s=60).document["units"][1]["restarts"] == 1

    for device in (site.device, site.empty):
        assert autostart.disable(device, timeout_s=60).document["changed"]
    _restart_cleanly(site)
    left = site.shell("sh", "-c", "find /etc/systemd/system ~/.config/systemd -name 'edgeq*'")
    assert left == []
    assert not site.answers("tcp", str(PORT))
    site.say("disabled: nothing of it is left, and nothing runs after a restart")


def socket_of(site: Site) -> str:
    return f"{site.home}/serve.sock"


def _trial_cut_and_settled(site: Site, old: Bundle, new: Bundle, what: str, kind: str, where: str) -> None:
    deploy_one(site.device, new, workspace=site.workspace, timeout_s=60, soak_s=SOAK_S)
    assert site.current() == new.release
    assert site.state() == "soaking"
    before = site.boot_id()
    site.machine.cut()
    boot_s = site.machine.boot()
    assert site.boot_id() != before
    settled_s = site.until("the old release is back", lambda: site.current() == old.release)
    serves_s = site.until("it serves", lambda: site.answers(kind, where))
    ran = site.started()
    assert ran["boot_id"] == site.boot_id()
    assert ran["ok"] is True
    recovered = ran["models"]["double"]
    assert (recovered["state"], recovered["changed"]) == ("rolled_back", True)
    assert "restarted" in recovered["reason"]
    site.say(
        f"{what}: power cut in a soak; up after {boot_s:.1f} s; without a call: back to "
        f"{old.release[:12]} {ran['since_boot_s']:.1f} s after the kernel's start (seen {settled_s:.1f} s "
        f"after ssh answered), infers over HTTP {serves_s:.1f} s later; reason: {recovered['reason']}"
    )
    status = autostart.status(site.device, timeout_s=60).document
    assert status["seen_at_boot"]
    assert status["ran_in_this_boot"]
    site.say(f"{what}: {[(unit['unit'], unit['active'], unit['result']) for unit in status['units']]}")


def _restart_cleanly(site: Site) -> None:
    console = site.machine.console.stat().st_size
    with contextlib.suppress(LinkLost):  # the connection may end before the command does
        site.shell("sudo", "-n", "systemctl", "--no-block", "poweroff", check=False)
    site.machine.wait_off(120)
    assert b"Power down" in site.machine.console.read_bytes()[console:]
    site.say(f"clean restart: up after {site.machine.boot():.1f} s")
