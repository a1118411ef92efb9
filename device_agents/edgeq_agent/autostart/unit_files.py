"""The text of the units, scripts and crontab lines that start the agent; pure functions of facts."""

from __future__ import annotations

import os
import re
import shlex

from edgeq_agent.autostart import record
from edgeq_agent.autostart.host_env import HostEnv
from edgeq_agent.autostart.record import Artifacts, Spec
from edgeq_agent.calls.fields import Fields
from edgeq_agent.errors import SERVICE_IMPOSSIBLE, AgentError
from edgeq_agent.platforms.base import PLAIN, SYSTEMD_SYSTEM, SYSTEMD_USER, TERMUX_BOOT

SYSTEM_UNITS = "/etc/systemd/system"
_NOTE = "# Written by edgeq; `edgeq devices service DEVICE --disable` removes it.\n"

_USER_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]{0,30}")

# Starts the newest agent, by the same rule as `agent_files.newest`: the one that the host placed last.
STARTER = '''"""Start the newest agent of this folder. Written by edgeq."""
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

# Most of systemd's sandbox needs rights that a user manager does not have.
_SANDBOX_USER = ("NoNewPrivileges=yes", "LockPersonality=yes", "RestrictRealtime=yes", "UMask=0077")
_SANDBOX_SYSTEM = (
    "PrivateTmp=yes",
    "ProtectSystem=strict",
    "ProtectControlGroups=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
    "RestrictSUIDSGID=yes",
)


def artifacts(spec: Spec, env: HostEnv) -> Artifacts:
    """Return what to install for an autostart.

    Raises:
        AgentError: EQ558, a path of this device has characters that such a file cannot hold.
    """
    for path in (env.home, env.python, *serve_words(spec, env.home)):
        _check_path(path)
    makers = {
        SYSTEMD_USER: _systemd_user,
        SYSTEMD_SYSTEM: _systemd_system,
        TERMUX_BOOT: _termux_boot,
        PLAIN: _plain,
    }
    return makers[spec.kind](spec, env)


def boot_words(env: HostEnv) -> list[str]:
    """Return the command that finishes or undoes what a restart interrupted."""
    return [env.python, "-I", record.starter(env.home), "boot", "--home", env.home]


def serve_words(spec: Spec, home: str) -> list[str]:
    """Return the arguments of `serve` for the models of an autostart."""
    words = ["serve", "--home", home]
    if spec.port is not None:
        words += ["--port", str(spec.port)]
    if spec.token_file is not None:
        words += ["--token-file", spec.token_file]
    words += spec.options
    for model in spec.models:
        words += ["--model", Fields({"model": model}).model_name()]
    return words


def _systemd_user(spec: Spec, env: HostEnv) -> Artifacts:
    folder = os.path.join(env.login, ".config", "systemd", "user")
    runtime_folder = f"/run/user/{env.uid}"
    sandbox = (*_SANDBOX_USER, *_socket_folder(spec, runtime_folder))
    return _units(spec, env, folder, "default.target", sandbox)


def _systemd_system(spec: Spec, env: HostEnv) -> Artifacts:
    paths = [env.home]
    socket_folder = _socket_folder(spec, "/run")
    if spec.socket is not None and not socket_folder:
        paths.append(os.path.dirname(spec.socket))
        if spec.socket.startswith(("/tmp/", "/var/tmp/")):  # noqa: S108 - refused, not used
            raise AgentError(
                SERVICE_IMPOSSIBLE,
                spec.socket,
                "a system service has a /tmp of its own, which no other program sees",
                expected="a socket in another folder",
                hint="for example /run/edgeq/serve.sock",
            )
    sandbox = (
        *_SANDBOX_USER,
        *_SANDBOX_SYSTEM,
        "ReadWritePaths=" + " ".join(_word(path) for path in paths),
        f"User={_user_of(env)}",
        *socket_folder,
    )
    return _units(spec, env, SYSTEM_UNITS, "multi-user.target", sandbox)


def _socket_folder(spec: Spec, runtime_folder: str) -> tuple[str, ...]:
    """Return the settings that create the socket's folder, if it disappears with the boot."""
    folder = os.path.dirname(spec.socket or "")
    if not folder.startswith(runtime_folder + "/"):
        return ()
    # Who may connect is decided by the mode of the socket.
    inside = os.path.relpath(folder, runtime_folder)
    return ("RuntimeDirectory=" + _word(inside), "RuntimeDirectoryMode=0755", "RuntimeDirectoryPreserve=yes")


def _units(spec: Spec, env: HostEnv, folder: str, target: str, sandbox: tuple[str, ...]) -> Artifacts:
    name = record.name_of(env, spec.kind)
    texts = {name + ".service": _recover_unit(env, target, sandbox)}
    if spec.models:
        texts[name + "-serve.service"] = _serve_unit(spec, env, target, name, sandbox)
    wants = os.path.join(folder, target + ".wants")
    return Artifacts(
        files=(
            (record.starter(env.home), STARTER, 0o600),
            *((os.path.join(folder, unit), text, 0o644) for unit, text in texts.items()),
        ),
        links=tuple((os.path.join(wants, unit), os.path.join(folder, unit)) for unit in texts),
        units=tuple(texts),
    )


def _recover_unit(env: HostEnv, target: str, sandbox: tuple[str, ...]) -> str:
    return _NOTE + "\n".join(
        [
            "[Unit]",
            "Description=edgeq: finish or undo what a restart interrupted",
            "RequiresMountsFor=" + _word(env.home),
            "",
            "[Service]",
            "Type=oneshot",
            "RemainAfterExit=yes",
            # It waits for a call that holds the lock, and checks the health of the release it rolls back to.
            "TimeoutStartSec=900",
            "ExecStart=" + " ".join(_word(word) for word in boot_words(env)),
            *sandbox,
            "",
            "[Install]",
            "WantedBy=" + target,
            "",
        ]
    )


def _serve_unit(spec: Spec, env: HostEnv, target: str, name: str, sandbox: tuple[str, ...]) -> str:
    words = [env.python, "-I", record.starter(env.home), *serve_words(spec, env.home)]
    return _NOTE + "\n".join(
        [
            "[Unit]",
            "Description=edgeq: serve " + ", ".join(spec.models),
            "RequiresMountsFor=" + _word(env.home),
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
            *sandbox,
            "",
            "[Install]",
            "WantedBy=" + target,
            "",
        ]
    )


def _termux_boot(spec: Spec, env: HostEnv) -> Artifacts:
    # Termux has no /bin/sh and no /usr/bin/env. The app waits for the script, so the supervisor stays in the
    # background.
    prefix = str(env.prefix)
    wake = os.path.join(prefix, "bin", "termux-wake-lock")
    script = [
        "#!" + os.path.join(prefix, "bin", "sh"),
        _NOTE.rstrip(),
        f"if [ -x {shlex.quote(wake)} ]; then {shlex.quote(wake)}; fi",
        _supervised(env),
        "",
    ]
    path = os.path.join(env.login, ".termux", "boot", record.name_of(env, TERMUX_BOOT))
    return Artifacts(
        files=((record.starter(env.home), STARTER, 0o600), (path, "\n".join(script), 0o700)),
    )


def _plain(spec: Spec, env: HostEnv) -> Artifacts:
    path = os.path.join(record.folder(env.home), "start.sh")
    script = "#!/bin/sh\n" + _NOTE + _supervised(env) + "\n"
    line = ""
    if env.crontab:
        # In a crontab an unescaped % ends the command.
        line = f"@reboot {shlex.quote(path)} # {record.name_of(env, PLAIN)}".replace("%", "\\%")
    return Artifacts(files=((record.starter(env.home), STARTER, 0o600), (path, script, 0o700)), crontab=line)


def _supervised(env: HostEnv) -> str:
    return "exec " + " ".join(shlex.quote(word) for word in [*boot_words(env), "--supervise"])


def _user_of(env: HostEnv) -> str:
    # systemd refuses some names of directory services; it accepts every number.
    return env.user if _USER_NAME.fullmatch(env.user) else str(env.uid)


def _word(text: str) -> str:
    """Escape a word for a unit file, where % begins a specifier and a blank ends a word."""
    text = text.replace("%", "%%")
    return f'"{text}"' if " " in text else text


def _check_path(path: str) -> None:
    if not path.isprintable() or set(path) & set("\\\"'$`;"):
        raise AgentError(
            SERVICE_IMPOSSIBLE,
            "service",
            "the path has characters that a unit file or a script cannot hold safely",
            expected="letters, digits, spaces and . _ - + @ % /",
            got=path,
            hint="choose another folder for the agent: `home = ` in devices.toml",
        )
