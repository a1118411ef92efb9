"""A phone with Termux: port 8022, no root, no /tmp, no /usr/bin/env; the agent works, and no wheel fits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgeq.bundle.archive import Bundle
from edgeq.errors import DeviceError, DeviceUnsupported
from edgeq.fleet import autostart
from edgeq.fleet.connect import open_agent
from edgeq.fleet.deploy import deploy_one, plan_one
from edgeq.fleet.enrol import Enrolment
from edgeq.fleet.operations import status
from edgeq.fleet.ssh.transport import connect
from edgeq.fleet.transport import Limits
from edgeq.values import DeviceKind
from tests.lab import termux
from tests.lab.device import LabDevice, running
from tests.lab.roots import Recipe
from tests.lab.session import Lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]
LIMITS = Limits(first_s=20, silence_s=20, total_s=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Phone:
    """A phone that runs and is enrolled."""

    device: LabDevice
    enrolment: Enrolment


@pytest.fixture(scope="module")
def phone(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phone]:
    made = lab.device(termux.termux(Recipe(arch="amd64")), "pixel", host=termux.HOST, port=termux.PORT)
    with running(made) as device:
        enrolled = device.access.enrol(tmp_path_factory.mktemp("workspace"), kind=DeviceKind.ANDROID)
        yield Phone(device=device, enrolment=enrolled)


def shell(phone: Phone, *argv: str) -> tuple[int | None, str]:
    with connect(phone.enrolment.device, timeout_s=10) as transport:
        running_command = transport.run(list(argv), stdin=(), limits=LIMITS)
        lines = [line.decode() for line in running_command.lines()]
        ended = running_command.ended()
        return ended.exit_status, "\n".join([*lines, ended.stderr])


def test_the_lab_is_true_to_what_a_phone_lacks(phone: Phone) -> None:
    assert phone.enrolment.device.port == 8022
    assert shell(phone, "id", "-un")[1].strip() == termux.USER
    assert set(shell(phone, "ls", "/")[1].split()) == {
        *("bin", "data", "dev", "etc", "proc", "sdcard", "sys", "system"),
    }
    script = "printf '#!/usr/bin/env python3\\nprint(1)\\n' > ~/shebang; chmod 755 ~/shebang; ~/shebang"
    exit_status, printed = shell(phone, "sh", "-c", script)
    assert exit_status in (126, 127), printed


def test_the_agent_lives_below_termuxs_home_and_says_that_it_is_android(phone: Phone) -> None:
    facts = phone.enrolment.facts
    assert facts.document["kind"] == "android"
    assert facts.libc == "bionic"
    with open_agent(phone.enrolment.device) as client:
        placed = client.install_agent_file()
    assert placed.home == f"{termux.HOME}/.edgeq"
    outside = [
        path
        for path in phone.device.upper.rglob("*")
        if path.is_file() and phone.device.home not in path.parents and path.suffix != ".pyc"
    ]
    outside = [path for path in outside if not path.name.startswith("ssh_host_")]
    assert outside == [], "edgeq writes only below the login folder"


def test_the_everyday_verbs_work(phone: Phone) -> None:
    data = b"a blob for a phone" * 1000
    sha256 = hashlib.sha256(data).hexdigest()
    request = {"sha256": sha256, "size_bytes": len(data)}
    with open_agent(phone.enrolment.device) as client:
        assert client.call("missing", {"blobs": {sha256: len(data)}})["missing"] == [sha256]
        assert client.call("put", request, payload=data)["stored"]
        assert client.call("missing", {"blobs": {sha256: len(data)}})["missing"] == []
    answer = status(phone.enrolment.device)
    assert answer.models == {}
    assert answer.document["device_id"] == phone.enrolment.facts.device_id


def test_no_wheel_fits_and_plan_and_error_say_so(
    phone: Phone, site: Path, releases: dict[str, Bundle]
) -> None:
    planned = plan_one(phone.enrolment.device, releases["first"], workspace=site)
    assert planned.runtime.files == ()
    (reason,) = [step.reason for step in planned.plan.steps if step.part.value == "runtime"]
    assert "there are no wheels of a TFLite runtime for its C library" in reason
    assert "bionic" in reason
    with pytest.raises(DeviceUnsupported, match="no module imports and infers"):
        deploy_one(phone.enrolment.device, releases["first"], workspace=site)
    assert status(phone.enrolment.device).models == {}
    assert not any((phone.device.home / ".edgeq" / "runtime").iterdir())


def test_termux_boot_gets_a_script_that_runs_as_it_is(phone: Phone) -> None:
    answer = autostart.enable(phone.enrolment.device).document
    assert (answer["choice"], answer["kind"]) == ("termux-boot", "termux-boot")
    assert answer["at_boot"] is None, "whether the app is there cannot be seen from here"
    assert "Termux:Boot" in answer["why"]
    assert answer["last"]["ok"], "it ran once when it was enabled"
    script = answer["files"][-1]
    assert script.startswith(f"{termux.HOME}/.termux/boot/edgeq-")
    (first, *_) = shell(phone, "cat", script)[1].splitlines()
    assert first == f"#!{termux.PREFIX}/bin/sh"
    # As the app runs it: by its first line, without a login environment.
    exit_status, printed = shell(phone, "env", "-i", script)
    assert exit_status == 0, printed
    assert '"event":"started"' in printed
    again = autostart.status(phone.enrolment.device).document
    assert again["last"]["time_ns"] > answer["last"]["time_ns"]
    with pytest.raises(DeviceError) as caught:
        autostart.enable(phone.enrolment.device, kind=autostart.StartKind.SYSTEMD_USER)
    assert caught.value.reported_code == "EQ558"
    assert autostart.disable(phone.enrolment.device).document["changed"]
    assert shell(phone, "ls", f"{termux.HOME}/.termux/boot")[1].strip() == ""
