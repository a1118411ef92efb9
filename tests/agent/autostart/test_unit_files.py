"""The text of units, scripts and crontab lines, and that no input becomes code in one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgeq_agent.autostart import cron, installer, record, unit_files
from edgeq_agent.autostart.kinds import KINDS
from edgeq_agent.autostart.record import Artifacts, Spec
from edgeq_agent.errors import AgentError
from edgeq_agent.platforms.base import PLAIN, SYSTEMD_SYSTEM, SYSTEMD_USER, TERMUX_BOOT
from tests.agent.autostart.envs import PHONE, PI


def file_of(made: Artifacts, ending: str) -> tuple[str, str, int]:
    (match,) = [entry for entry in made.files if entry[0].endswith(ending)]
    return match


@pytest.mark.parametrize("kind", [SYSTEMD_USER, SYSTEMD_SYSTEM])
def test_systemd_accepts_the_units(kind: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze here")
    # What the units name must exist for it.
    env = PI._replace(home=str(tmp_path / "a home, 50%"), python=sys.executable, user="root")
    made = unit_files.artifacts(Spec(kind, ("kws", "vww"), 8080), env)
    paths = []
    for path, content, _ in made.files:
        if path.endswith(".service"):
            paths.append(tmp_path / Path(path).name)
            paths[-1].write_text(content)
    assert len(paths) == 2
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    argv = ["systemd-analyze", "verify", *(["--user"] if kind == SYSTEMD_USER else []), *map(str, paths)]
    verified = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, env=environment)
    complaints = [line for line in verified.stderr.splitlines() if tmp_path.name in line or "edgeq" in line]
    assert complaints == [], verified.stderr
    paths[0].write_text(paths[0].read_text().replace("Type=oneshot", "Type=sometimes"))
    verified = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert "sometimes" in verified.stderr, "a wrong unit is seen"


OPTIONS = (
    "--unix=/run/edgeq/serve.sock",
    "--socket-mode=666",
    "--sessions=4",
    "--allow-origin=https://a.example",
)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_starts_the_server_with_its_options(kind: str) -> None:
    spec = Spec(kind, ("kws",), None, None, OPTIONS)
    words = unit_files.serve_words(spec, PI.home)
    assert [word for word in words if word in OPTIONS] == list(OPTIONS)
    env = PHONE if kind == TERMUX_BOOT else PI
    made = unit_files.artifacts(spec, env)
    if kind in (SYSTEMD_USER, SYSTEMD_SYSTEM):  # the others read the record
        _, unit, _ = next(each for each in made.files if each[0].endswith("-serve.service"))
        assert " ".join(OPTIONS) in unit


@pytest.mark.parametrize(
    ("kind", "path", "line"),
    [
        (SYSTEMD_SYSTEM, "/run/edgeq/serve.sock", "RuntimeDirectory=edgeq\n"),
        (SYSTEMD_SYSTEM, "/run/a b/50%/s.sock", 'RuntimeDirectory="a b/50%%"\n'),
        (SYSTEMD_SYSTEM, "/srv/shared/s.sock", f"ReadWritePaths={PI.home} /srv/shared\n"),
        (SYSTEMD_USER, f"/run/user/{PI.uid}/edgeq/s.sock", "RuntimeDirectory=edgeq\n"),
    ],
)
def test_the_folder_of_the_socket_is_there_and_writable(kind: str, path: str, line: str) -> None:
    made = unit_files.artifacts(Spec(kind, ("kws",), None, None, (f"--unix={path}",)), PI)
    _, unit, _ = next(each for each in made.files if each[0].endswith("-serve.service"))
    assert line in unit


def test_a_socket_that_no_other_program_would_see_is_refused() -> None:
    spec = Spec(SYSTEMD_SYSTEM, ("kws",), None, None, ("--unix=/tmp/s.sock",))
    with pytest.raises(AgentError, match="a /tmp of its own"):
        unit_files.artifacts(spec, PI)


@pytest.mark.parametrize("kind", [SYSTEMD_USER, PLAIN])
@pytest.mark.parametrize(
    "value", ['/run/a"b/s', "/run/a;b/s", "/run/a\nExecStart=x", "/run/$(id)/s", "/run/`id`"]
)
def test_no_option_becomes_code(kind: str, value: str) -> None:
    with pytest.raises(AgentError, match="cannot hold safely"):
        unit_files.artifacts(Spec(kind, ("kws",), None, None, (f"--unix={value}",)), PI)


def test_user_units_recover_and_serve() -> None:
    made = unit_files.artifacts(Spec(SYSTEMD_USER, ("kws",), 8080), PI)
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


def test_a_system_unit_runs_as_the_agents_user_and_may_write_only_its_home() -> None:
    made = unit_files.artifacts(Spec(SYSTEMD_SYSTEM), PI)
    (unit,) = [content for path, content, _ in made.files if path.endswith(".service")]
    for line in ("User=pi", "ProtectSystem=strict", "ReadWritePaths=/srv/pi/.edgeq"):
        assert f"{line}\n" in unit
    assert "WantedBy=multi-user.target" in unit
    (unit_path,) = [path for path, _, _ in made.files if path.startswith("/etc/")]
    other = unit_files.artifacts(Spec(SYSTEMD_SYSTEM), PI._replace(home="/srv/pi/.other"))
    assert unit_path not in [path for path, _, _ in other.files], "two homes of a device do not meet"


def test_a_user_name_that_systemd_refuses_is_given_as_a_number() -> None:
    made = unit_files.artifacts(Spec(SYSTEMD_SYSTEM), PI._replace(user="DOMAIN\\pi", uid=70001))
    (unit,) = [content for path, content, _ in made.files if path.endswith(".service")]
    assert "User=70001\n" in unit


def test_termux_has_its_own_shell_and_prefix() -> None:
    made = unit_files.artifacts(Spec(TERMUX_BOOT, ("kws",)), PHONE)
    path, script, mode = file_of(made, "boot/" + record.name_of(PHONE, TERMUX_BOOT))
    assert path.startswith("/data/data/com.termux/files/home/.termux/boot/")
    assert mode == 0o700
    lines = script.splitlines()
    assert lines[0] == "#!/data/data/com.termux/files/usr/bin/sh"
    assert "termux-wake-lock" in lines[2]
    assert "/tmp" not in script
    assert "/usr/bin/env" not in script
    assert lines[-1].endswith("boot --home /data/data/com.termux/files/home/.edgeq --supervise")


@pytest.mark.parametrize("name", ["../x", "a b", "kws;reboot", "$(id)", "kws\nExecStart=/bin/sh", "-x", ""])
@pytest.mark.parametrize("kind", [SYSTEMD_USER, SYSTEMD_SYSTEM])
def test_a_name_that_is_not_a_models_name_is_refused(kind: str, name: str) -> None:
    with pytest.raises(AgentError) as caught:
        unit_files.artifacts(Spec(kind, (name,)), PI)
    assert caught.value.code == "EQ512"


@pytest.mark.parametrize("path", ["/a\nb", "/a/$HOME", "/a'b", '/a"b', "/a`id`", "/a;b"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_path_that_could_mean_something_else_is_refused(kind: str, path: str) -> None:
    for env in (PHONE._replace(home=path), PHONE._replace(python=path)):
        with pytest.raises(AgentError) as caught:
            unit_files.artifacts(Spec(kind), env)
        assert caught.value.code == "EQ558"


def test_spaces_and_percent_signs_are_escaped_for_systemd_and_for_cron() -> None:
    env = PI._replace(home="/srv/a home/50%", crontab="/usr/bin/crontab")
    unit = unit_files.artifacts(Spec(SYSTEMD_USER), env).files[1][1]
    assert '"/srv/a home/50%%/service/start.py"' in unit
    line = unit_files.artifacts(Spec(PLAIN), env).crontab
    assert line.startswith("@reboot '/srv/a home/50\\%/service/start.sh' # edgeq-")


def test_only_our_line_of_a_crontab_is_replaced() -> None:
    theirs = "MAILTO=me\n5 4 * * * backup # nightly\n"
    name = "edgeq-01234567"
    one = cron.with_line(theirs, f"@reboot /a # {name}", name)
    assert one == theirs + f"@reboot /a # {name}\n"
    two = cron.with_line(one, f"@reboot /b # {name}", name)
    assert two == theirs + f"@reboot /b # {name}\n"
    assert cron.with_line(two, "", name) == theirs
    assert cron.with_line(theirs.rstrip("\n"), "", name) == theirs, "a last line without an end stays whole"


def test_root_writes_edgeqs_units_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installer, "write", lambda artifacts: pytest.fail("nothing may be written"))
    for path in (
        "/etc/passwd",
        "/etc/systemd/system/sshd.service",
        "/etc/systemd/system/../edgeq.service",
        "/etc/systemd/system/edgeq.service.d/x.conf",
        "/etc/systemd/system/edgeq.service\n",
    ):
        for order in (
            {"files": [[path, "", 0o644]]},
            {"remove": [path]},
            {"links": [["/etc/systemd/system/edgeq.service", path]]},
        ):
            with pytest.raises(AgentError) as caught:
                installer.execute(*installer.parse_order(order))
            assert caught.value.code == "EQ512"
