"""The text of what starts the agent, and the choice of it: pure functions of a device's facts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeq_agent.autostart import at_boot, choice, cron, host_env, installer, record, unit_files
from edgeq_agent.autostart.host_env import KINDS, PLAIN, SYSTEM, TERMUX, USER, Surroundings
from edgeq_agent.autostart.record import Installed, Wanted
from edgeq_agent.errors import AgentError

PI = Surroundings(
    home="/srv/pi/.edgeq",
    python="/usr/bin/python3",
    uid=1000,
    user="pi",
    login="/srv/pi",
    prefix=None,
    systemd=True,
    user_manager=True,
    linger=True,
    sudo=False,
    crontab=None,
    cron=False,
)
PHONE = PI._replace(
    home="/data/data/com.termux/files/home/.edgeq",
    login="/data/data/com.termux/files/home",
    python="/data/data/com.termux/files/usr/bin/python3",
    prefix="/data/data/com.termux/files/usr",
    systemd=False,
    user_manager=False,
)


def file_of(made: Installed, ending: str) -> tuple[str, str, int]:
    (found,) = [entry for entry in made.files if entry[0].endswith(ending)]
    return found


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({}, USER),
        ({"uid": 0}, SYSTEM),
        ({"user_manager": False}, PLAIN),
        ({"user_manager": False, "sudo": True}, SYSTEM),
        ({"systemd": False, "user_manager": False, "crontab": "/usr/bin/crontab"}, PLAIN),
        ({"prefix": "/data/data/com.termux/files/usr"}, TERMUX),
    ],
)
def test_the_kind_that_fits(change: dict[str, Any], kind: str) -> None:
    found = PI._replace(**change)
    assert choice.choose(found) == kind
    choice.check(kind, found)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (USER, {"systemd": False}, "runs systemd"),
        (USER, {"user_manager": False}, "manager of pi's services"),
        (SYSTEM, {"systemd": False}, "runs systemd"),
        (SYSTEM, {}, "sudo without a password"),
        (TERMUX, {}, "Termux"),
    ],
)
def test_a_kind_that_cannot_work_is_refused_with_one_that_can(
    kind: str, change: dict[str, Any], message: str
) -> None:
    found = PI._replace(**change)
    with pytest.raises(AgentError) as caught:
        choice.check(kind, found)
    assert caught.value.code == "EQ558"
    assert message in str(caught.value.expected)
    assert choice.choose(found) in str(caught.value.hint)


@pytest.mark.parametrize("kind", [USER, SYSTEM])
def test_systemd_finds_nothing_to_complain_of(kind: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze here")
    # What the units name must exist for it.
    found = PI._replace(home=str(tmp_path / "a home, 50%"), python=sys.executable, user="root")
    made = unit_files.installed(Wanted(kind, ("kws", "vww"), 8080), found)
    paths = []
    for path, content, _ in made.files:
        if path.endswith(".service"):
            paths.append(tmp_path / Path(path).name)
            paths[-1].write_text(content)
    assert len(paths) == 2
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    argv = ["systemd-analyze", "verify", *(["--user"] if kind == USER else []), *map(str, paths)]
    said = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, env=environment)
    complaints = [line for line in said.stderr.splitlines() if tmp_path.name in line or "edgeq" in line]
    assert complaints == [], said.stderr
    paths[0].write_text(paths[0].read_text().replace("Type=oneshot", "Type=sometimes"))
    said = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert "sometimes" in said.stderr, "a wrong unit is seen"


def test_a_users_unit_settles_and_serves() -> None:
    made = unit_files.installed(Wanted(USER, ("kws",), 8080), PI)
    path, unit, mode = file_of(made, "/edgeq.service")
    assert path == "/srv/pi/.config/systemd/user/edgeq.service"
    assert mode == 0o644
    starter = "/srv/pi/.edgeq/service/start.py"
    assert f"ExecStart=/usr/bin/python3 -I {starter} boot --home /srv/pi/.edgeq\n" in unit
    assert "NoNewPrivileges=yes\n" in unit
    assert "ProtectSystem" not in unit, "a user's manager cannot do that everywhere"
    _, serve, _ = file_of(made, "/edgeq-serve.service")
    words = "serve --home /srv/pi/.edgeq --port 8080 --model kws"
    assert f"ExecStart=/usr/bin/python3 -I {starter} {words}\n" in serve
    assert "Restart=on-failure\n" in serve
    assert "StartLimitBurst=5\n" in serve
    assert "After=edgeq.service\n" in serve
    wants = "/srv/pi/.config/systemd/user/default.target.wants/edgeq.service"
    assert (wants, path) in made.links


def test_a_system_unit_runs_as_the_agents_user_and_may_write_its_home_alone() -> None:
    made = unit_files.installed(Wanted(SYSTEM), PI)
    (unit,) = [content for path, content, _ in made.files if path.endswith(".service")]
    for line in ("User=pi", "ProtectSystem=strict", "ReadWritePaths=/srv/pi/.edgeq"):
        assert f"{line}\n" in unit
    assert "WantedBy=multi-user.target" in unit
    (unit_path,) = [path for path, _, _ in made.files if path.startswith("/etc/")]
    other = unit_files.installed(Wanted(SYSTEM), PI._replace(home="/srv/pi/.other"))
    assert unit_path not in [path for path, _, _ in other.files], "two homes of a device do not meet"


def test_a_user_whose_name_is_none_to_systemd_is_told_by_number() -> None:
    made = unit_files.installed(Wanted(SYSTEM), PI._replace(user="DOMAIN\\pi", uid=70001))
    (unit,) = [content for path, content, _ in made.files if path.endswith(".service")]
    assert "User=70001\n" in unit


def test_termux_has_its_own_shell_and_prefix() -> None:
    made = unit_files.installed(Wanted(TERMUX, ("kws",)), PHONE)
    path, script, mode = file_of(made, "boot/" + record.name_of(PHONE, TERMUX))
    assert path.startswith("/data/data/com.termux/files/home/.termux/boot/")
    assert mode == 0o700
    lines = script.splitlines()
    assert lines[0] == "#!/data/data/com.termux/files/usr/bin/sh"
    assert "termux-wake-lock" in lines[2]
    assert "/tmp" not in script
    assert "/usr/bin/env" not in script
    assert lines[-1].endswith("boot --home /data/data/com.termux/files/home/.edgeq --supervise")


@pytest.mark.parametrize("name", ["../x", "a b", "kws;reboot", "$(id)", "kws\nExecStart=/bin/sh", "-x", ""])
@pytest.mark.parametrize("kind", [USER, SYSTEM])
def test_a_name_that_is_no_models_becomes_no_text(kind: str, name: str) -> None:
    with pytest.raises(AgentError) as caught:
        unit_files.installed(Wanted(kind, (name,)), PI)
    assert caught.value.code == "EQ512"


@pytest.mark.parametrize("path", ["/a\nb", "/a/$HOME", "/a'b", '/a"b', "/a`id`", "/a;b"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_path_that_could_mean_something_else_is_refused(kind: str, path: str) -> None:
    for found in (PHONE._replace(home=path), PHONE._replace(python=path)):
        with pytest.raises(AgentError) as caught:
            unit_files.installed(Wanted(kind), found)
        assert caught.value.code == "EQ558"


def test_a_blank_and_a_percent_sign_are_written_as_each_reader_takes_them() -> None:
    found = PI._replace(home="/srv/a home/50%", crontab="/usr/bin/crontab")
    unit = unit_files.installed(Wanted(USER), found).files[1][1]
    assert '"/srv/a home/50%%/service/start.py"' in unit
    line = unit_files.installed(Wanted(PLAIN), found).crontab
    assert line.startswith("@reboot '/srv/a home/50\\%/service/start.sh' # edgeq-")


def test_our_line_of_a_crontab_is_replaced_and_all_others_stay() -> None:
    theirs = "MAILTO=me\n5 4 * * * backup # nightly\n"
    name = "edgeq-01234567"
    one = cron.with_line(theirs, f"@reboot /a # {name}", name)
    assert one == theirs + f"@reboot /a # {name}\n"
    two = cron.with_line(one, f"@reboot /b # {name}", name)
    assert two == theirs + f"@reboot /b # {name}\n"
    assert cron.with_line(two, "", name) == theirs
    assert cron.with_line(theirs.rstrip("\n"), "", name) == theirs, "a last line without an end stays whole"


def _record(kind: str, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "files": [], "links": [], "digests": [], "crontab": "", **more}


def test_what_is_not_known_to_start_is_not_said_to_start() -> None:
    assert at_boot.judge(_record(USER), PI, False) == (True, None)
    starts, why = at_boot.judge(_record(USER), PI._replace(linger=False), False)
    assert (starts, "linger is off" in str(why)) == (False, True)
    assert at_boot.judge(_record(TERMUX), PHONE, False)[0] is None
    assert at_boot.judge(_record(TERMUX), PHONE, True) == (True, None)
    starts, why = at_boot.judge(_record(PLAIN, files=[__file__], digests=["other"]), PI, False)
    assert (starts, "not as they were installed" in str(why)) == (False, True)
    mine = record.digest(Path(__file__).read_text())
    starts, why = at_boot.judge(_record(PLAIN, files=[__file__], digests=[mine]), PI, False)
    assert (starts, "no crontab" in str(why)) == (False, True)


def test_roots_part_writes_our_units_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installer, "_put", lambda made: pytest.fail("nothing may be written"))
    for path in (
        "/etc/passwd",
        "/etc/systemd/system/sshd.service",
        "/etc/systemd/system/../edgeq.service",
        "/etc/systemd/system/edgeq.service.d/x.conf",
        "/etc/systemd/system/edgeq.service\n",
    ):
        for order in (
            {"files": [[path, "", 0o644]]},
            {"take": [path]},
            {"links": [["/etc/systemd/system/edgeq.service", path]]},
        ):
            with pytest.raises(AgentError) as caught:
                installer._obey(order)
            assert caught.value.code == "EQ512"


def test_linger_is_read_from_logins_own_folder(tmp_path: Path) -> None:
    assert not host_env.lingers("pi", str(tmp_path))
    (tmp_path / "var/lib/systemd/linger").mkdir(parents=True)
    (tmp_path / "var/lib/systemd/linger/pi").touch()
    assert host_env.lingers("pi", str(tmp_path))
