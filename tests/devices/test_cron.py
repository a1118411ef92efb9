"""A device without systemd: a real cron starts what settles releases, or the device says so."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeq.errors import DeviceError
from edgeq.fleet import autostart
from edgeq.values import Device
from tests.lab.device import LabDevice, Spec, running
from tests.lab.needs import tool
from tests.lab.roots import USER, Recipe, root_of
from tests.lab.session import Lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]
THEIRS = "5 4 * * * true # theirs"
# What the packages' scripts would do; PAM's own settings are made by hand in a root that is never configured.
_CONFIGURE = """
echo crontab:x:990: >> /etc/group
chgrp crontab /usr/bin/crontab
chmod 2755 /usr/bin/crontab
mkdir -p /var/spool/cron/crontabs
chgrp crontab /var/spool/cron/crontabs
chmod 1730 /var/spool/cron/crontabs
for kind in auth account session; do echo $kind required pam_permit.so; done > /etc/pam.d/cron
cp /etc/pam.d/cron /etc/pam.d/other
[ -L /var/run ] || { rm -rf /var/run; ln -s /run /var/run; }
"""


def as_root(device: LabDevice, *argv: str) -> str:
    """Run a command inside the device as its root, past SSH."""
    assert device.pid is not None
    (first,) = Path(f"/proc/{device.pid}/task/{device.pid}/children").read_text().split()
    enter = [tool("nsenter"), "--target", first, "--mount", "--uts", "--ipc", "--pid", "--root", "--wd"]
    done = subprocess.run([*enter, *argv], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, (argv, done.stdout, done.stderr)
    return done.stdout


@pytest.fixture
def board(lab: Lab) -> Iterator[LabDevice]:
    root = root_of(Recipe(arch="amd64", packages=("cron", "libpam-modules", "libpam-runtime")))
    with running(lab.device(Spec(layers=(root,)), "plain")) as device:
        as_root(device, "/bin/sh", "-ec", _CONFIGURE)
        yield device


def crontab(board: LabDevice) -> list[str]:
    return as_root(board, "/usr/bin/crontab", "-u", USER, "-l").splitlines()


def test_cron_starts_it_and_is_left_as_it_was(board: LabDevice, site: Path) -> None:
    device: Device = board.access.enrol(site).device
    as_root(board, "/bin/sh", "-ec", f"echo '{THEIRS}' | crontab -u {USER} -")
    with pytest.raises(DeviceError) as caught:
        autostart.enable(device)
    assert caught.value.reported_code == "EQ557"
    assert "no cron daemon runs" in caught.value.message

    as_root(board, "/usr/sbin/cron")
    answer = autostart.enable(device).document
    assert (answer["choice"], answer["kind"], answer["at_boot"]) == ("plain", "plain", True)
    ours = [line for line in crontab(board) if line != THEIRS]
    assert len(ours) == 1
    assert ours[0].startswith("@reboot ")
    autostart.enable(device)
    assert crontab(board) == [THEIRS, *ours], "enabling again changes nothing"
    ran = autostart.status(device).document["last"]["time_ns"]

    board.cut()
    board.boot()
    assert autostart.status(device).document["last"]["time_ns"] == ran, "without cron nothing runs it"
    assert autostart.status(device).document["at_boot"] is False
    as_root(board, "/usr/sbin/cron")
    deadline_s = time.monotonic() + 120
    while autostart.status(device).document["last"]["time_ns"] == ran:
        assert time.monotonic() < deadline_s, "cron did not run its @reboot line"
        time.sleep(0.5)
    status = autostart.status(device).document
    assert status["last"]["ok"]
    assert status["at_boot"] is True

    assert autostart.disable(device).document["changed"]
    assert crontab(board) == [THEIRS]


def test_without_cron_the_device_says_that_nothing_starts_it(board: LabDevice, site: Path) -> None:
    device = board.access.enrol(site).device
    as_root(board, "/bin/rm", "/usr/bin/crontab")
    with pytest.raises(DeviceError) as caught:
        autostart.enable(device)
    assert caught.value.reported_code == "EQ557"
    assert "no crontab; nothing runs" in caught.value.message
    assert f"as {USER}" in caught.value.hint
    with pytest.raises(DeviceError) as caught:
        autostart.enable(device, kind=autostart.StartKind.SYSTEMD_SYSTEM)
    assert caught.value.reported_code == "EQ558"
    assert autostart.status(device).document["enabled"]
