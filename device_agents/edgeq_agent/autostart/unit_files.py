"""The text of what starts the agent: units, scripts, a crontab's line; pure functions of facts."""

from __future__ import annotations

import os
import re
import shlex

from edgeq_agent.autostart import record
from edgeq_agent.autostart.host_env import PLAIN, SYSTEM, TERMUX, USER, Surroundings
from edgeq_agent.autostart.record import Installed, Wanted
from edgeq_agent.calls import request
from edgeq_agent.errors import SERVICE_IMPOSSIBLE, AgentError

SYSTEM_UNITS = "/etc/systemd/system"
_NOTE = "# Written by edgeq; `edgeq devices service DEVICE --disable` removes it.\n"

_USER_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]{0,30}")

# Starts the newest agent, by the rule of `agents.newest`: what serves after a deploy is what the host placed.
STARTER = '''"""Starts the newest agent of this folder. Written by edgeq."""
import os
import sys

home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
folder = os.path.join(home, "agent")
names = [name for name in os.listdir(folder) if name.startswith("edgeq-agent-") and name.endswith(".pyz")]
if not names:
    sys.exit("edgeq: there is no agent in " + folder)
newest = max(names, key=lambda name: (os.stat(os.path.join(folder, name)).st_mtime_ns, name))
os.execv(sys.executable, [sys.executable, "-I", os.path.join(folder, newest)] + sys.argv[1:])
'''

# Where each works: most of systemd's own sandbox needs rights that a user's manager does not have.
_HARD_ANYWHERE = ("NoNewPrivileges=yes", "LockPersonality=yes", "RestrictRealtime=yes", "UMask=0077")
_HARD_SYSTEM = (
    "PrivateTmp=yes",
    "ProtectSystem=strict",
    "ProtectControlGroups=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
    "RestrictSUIDSGID=yes",
)


def installed(wanted: Wanted, found: Surroundings) -> Installed:
    """Return what makes the start that is wanted.

    Raises:
        AgentError: EQ558, a path of this device cannot be written in such a file.
    """
    for path in (found.home, found.python):
        _check_path(path)
    make = {USER: _user, SYSTEM: _system, TERMUX: _termux, PLAIN: _plain}[wanted.kind]
    return make(wanted, found)


def boot_words(found: Surroundings) -> list[str]:
    """Return the command that settles what a restart interrupted."""
    return [found.python, "-I", record.starter(found.home), "boot", "--home", found.home]


def serve_words(wanted: Wanted, home: str) -> list[str]:
    """Return the words of `serve` for the models that are wanted."""
    words = ["serve", "--home", home]
    if wanted.port is not None:
        words += ["--port", str(wanted.port)]
    for model in wanted.models:
        words += ["--model", request.model_name({"model": model})]
    return words


def _user(wanted: Wanted, found: Surroundings) -> Installed:
    folder = os.path.join(found.login, ".config", "systemd", "user")
    return _units(wanted, found, folder, "default.target", _HARD_ANYWHERE)


def _system(wanted: Wanted, found: Surroundings) -> Installed:
    hard = (*_HARD_ANYWHERE, *_HARD_SYSTEM, "ReadWritePaths=" + _word(found.home), f"User={_user_of(found)}")
    return _units(wanted, found, SYSTEM_UNITS, "multi-user.target", hard)


def _units(wanted: Wanted, found: Surroundings, folder: str, target: str, hard: tuple[str, ...]) -> Installed:
    name = record.name_of(found, wanted.kind)
    texts = {name + ".service": _recover_unit(found, target, hard)}
    if wanted.models:
        texts[name + "-serve.service"] = _serve_unit(wanted, found, target, name, hard)
    wants = os.path.join(folder, target + ".wants")
    return Installed(
        files=(
            (record.starter(found.home), STARTER, 0o600),
            *((os.path.join(folder, unit), text, 0o644) for unit, text in texts.items()),
        ),
        links=tuple((os.path.join(wants, unit), os.path.join(folder, unit)) for unit in texts),
        units=tuple(texts),
    )


def _recover_unit(found: Surroundings, target: str, hard: tuple[str, ...]) -> str:
    return _NOTE + "\n".join(
        [
            "[Unit]",
            "Description=edgeq: settle what a restart interrupted",
            "RequiresMountsFor=" + _word(found.home),
            "",
            "[Service]",
            "Type=oneshot",
            "RemainAfterExit=yes",
            # It waits for a call that is at work, and looks at the health of what it goes back to.
            "TimeoutStartSec=900",
            "ExecStart=" + " ".join(_word(word) for word in boot_words(found)),
            *hard,
            "",
            "[Install]",
            "WantedBy=" + target,
            "",
        ]
    )


def _serve_unit(wanted: Wanted, found: Surroundings, target: str, name: str, hard: tuple[str, ...]) -> str:
    words = [found.python, "-I", record.starter(found.home), *serve_words(wanted, found.home)]
    return _NOTE + "\n".join(
        [
            "[Unit]",
            "Description=edgeq: serve " + ", ".join(wanted.models),
            "RequiresMountsFor=" + _word(found.home),
            f"Wants={name}.service",
            f"After={name}.service",
            "StartLimitIntervalSec=300",
            "StartLimitBurst=5",
            "",
            "[Service]",
            "Type=simple",
            "ExecStart=" + " ".join(_word(word) for word in words),
            "Restart=on-failure",
            "RestartSec=2",
            "TimeoutStopSec=20",
            *hard,
            "",
            "[Install]",
            "WantedBy=" + target,
            "",
        ]
    )


def _termux(wanted: Wanted, found: Surroundings) -> Installed:
    # No /bin/sh and no /usr/bin/env there. The app waits for the script: what stays is in the background.
    prefix = str(found.prefix)
    wake = os.path.join(prefix, "bin", "termux-wake-lock")
    script = [
        "#!" + os.path.join(prefix, "bin", "sh"),
        _NOTE.rstrip(),
        f"if [ -x {shlex.quote(wake)} ]; then {shlex.quote(wake)}; fi",
        _supervised(found),
        "",
    ]
    path = os.path.join(found.login, ".termux", "boot", record.name_of(found, TERMUX))
    return Installed(
        files=((record.starter(found.home), STARTER, 0o600), (path, "\n".join(script), 0o700)),
    )


def _plain(wanted: Wanted, found: Surroundings) -> Installed:
    path = os.path.join(record.folder(found.home), "start.sh")
    script = "#!/bin/sh\n" + _NOTE + _supervised(found) + "\n"
    line = ""
    if found.crontab:
        # In a crontab a bare % ends the command.
        line = f"@reboot {shlex.quote(path)} # {record.name_of(found, PLAIN)}".replace("%", "\\%")
    return Installed(
        files=((record.starter(found.home), STARTER, 0o600), (path, script, 0o700)), crontab=line
    )


def _supervised(found: Surroundings) -> str:
    return "exec " + " ".join(shlex.quote(word) for word in [*boot_words(found), "--supervise"])


def _user_of(found: Surroundings) -> str:
    # A name that systemd would not take as one (from a directory service) is told by its number.
    return found.user if _USER_NAME.fullmatch(found.user) else str(found.uid)


def _word(text: str) -> str:
    """Return a word as systemd reads it: % begins a specifier, blanks end a word."""
    text = text.replace("%", "%%")
    return f'"{text}"' if " " in text else text


def _check_path(path: str) -> None:
    if not path.isprintable() or set(path) & set("\\\"'$`;"):
        raise AgentError(
            SERVICE_IMPOSSIBLE,
            "service",
            "a start cannot be written for a path with such characters",
            expected="letters, digits, blanks and . _ - + @ % /",
            got=path,
            hint="move the agent's home: `home = ` in devices.toml",
        )
