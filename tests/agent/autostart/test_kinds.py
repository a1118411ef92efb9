"""The choice of the kind of autostart, and the check whether an installed one runs at boot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgeq_agent.autostart import host_env, kinds, record
from edgeq_agent.autostart.record import Record
from edgeq_agent.errors import AgentError
from edgeq_agent.platforms.base import PLAIN, SYSTEMD_SYSTEM, SYSTEMD_USER, TERMUX_BOOT
from tests.agent.autostart.envs import PHONE, PI


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({}, SYSTEMD_USER),
        ({"uid": 0}, SYSTEMD_SYSTEM),
        ({"user_manager": False}, PLAIN),
        ({"user_manager": False, "sudo": True}, SYSTEMD_SYSTEM),
        ({"systemd": False, "user_manager": False, "crontab": "/usr/bin/crontab"}, PLAIN),
    ],
)
def test_the_kind_with_the_fewest_rights_is_chosen(change: dict[str, Any], kind: str) -> None:
    env = PI._replace(**change)
    assert kinds.choose(env) == kind
    kinds.check(kind, env)


def test_a_phone_uses_termux_boot_where_termux_is() -> None:
    assert kinds.choose(PHONE) == TERMUX_BOOT
    assert kinds.choose(PHONE._replace(prefix=None)) == PLAIN


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (SYSTEMD_USER, {"systemd": False}, "runs systemd"),
        (SYSTEMD_USER, {"user_manager": False}, "user manager of pi"),
        (SYSTEMD_SYSTEM, {"systemd": False}, "runs systemd"),
        (SYSTEMD_SYSTEM, {}, "sudo without a password"),
        (TERMUX_BOOT, {}, "Termux"),
    ],
)
def test_an_impossible_kind_is_refused_and_the_hint_names_a_possible_one(
    kind: str, change: dict[str, Any], message: str
) -> None:
    env = PI._replace(**change)
    with pytest.raises(AgentError) as caught:
        kinds.check(kind, env)
    assert caught.value.code == "EQ558"
    assert message in str(caught.value.expected)
    assert kinds.choose(env) in str(caught.value.hint)


def installed(kind: str, file: str = "", digest: str = "") -> Record:
    return Record(
        kind=kind,
        models=(),
        port=None,
        files=(file,) if file else (),
        links=(),
        units=(),
        digests=(digest,) if file else (),
        crontab="",
        stale=(),
        boot_id="boot",
    )


def test_an_autostart_that_would_not_run_at_boot_is_reported_with_the_reason() -> None:
    assert kinds.runs_at_boot(installed(SYSTEMD_USER), PI, False) == (True, None)
    starts, why = kinds.runs_at_boot(installed(SYSTEMD_USER), PI._replace(linger=False), False)
    assert (starts, "lingering is off" in str(why)) == (False, True)
    assert kinds.runs_at_boot(installed(TERMUX_BOOT), PHONE, False)[0] is None
    assert kinds.runs_at_boot(installed(TERMUX_BOOT), PHONE, True) == (True, None)
    starts, why = kinds.runs_at_boot(installed(PLAIN, __file__, "other"), PI, False)
    assert (starts, "were changed after the installation" in str(why)) == (False, True)
    mine = record.digest(Path(__file__).read_text())
    starts, why = kinds.runs_at_boot(installed(PLAIN, __file__, mine), PI, False)
    assert (starts, "no crontab" in str(why)) == (False, True)


def test_lingering_is_read_from_logind_s_folder(tmp_path: Path) -> None:
    assert not host_env.has_linger("pi", str(tmp_path))
    (tmp_path / "var/lib/systemd/linger").mkdir(parents=True)
    (tmp_path / "var/lib/systemd/linger/pi").touch()
    assert host_env.has_linger("pi", str(tmp_path))
