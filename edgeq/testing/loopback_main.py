"""The loopback device's process: `python -m edgeq.testing.loopback FOLDER [--port 0]`."""

from __future__ import annotations

import argparse
import contextlib
import getpass
import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from types import FrameType

import paramiko
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgeq.errors import EdgeqError
from edgeq.testing.processes import kill_all
from edgeq.testing.server import Fault, ServerSettings, SshServer
from edgeq.testing.small_home import mount_small


def main() -> None:
    """Serve until SIGTERM, Ctrl-C, or (with --until-eof) the end of standard input."""
    options = _options()
    try:
        _serve(options)
    except EdgeqError as error:
        sys.exit(error.message)


def _serve(options: argparse.Namespace) -> None:
    folder: Path = options.folder.resolve()
    home = folder / "home"
    for path in (folder, home):
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o700)
    if options.home_size is not None:
        mount_small(home, options.home_size)
    identity = _key(folder / "identity")
    host_key = _key(folder / "host_key")
    authorized = folder / "authorized_keys"
    if not authorized.exists():
        authorized.write_text(f"{identity.get_name()} {identity.get_base64()}\n", encoding="ascii")
    user = getpass.getuser()
    with socket.create_server(("127.0.0.1", options.port), backlog=64) as listener:
        settings = ServerSettings(
            home=home,
            user=user,
            host_key=host_key,
            authorized_keys=authorized,
            environment={"HOME": str(home), "PATH": _path(), "LANG": "C.UTF-8"},
            fault=Fault(options.fault),
        )
        _end_on_signal()
        if options.until_eof:
            threading.Thread(target=_end_with_parent, daemon=True).start()
        ready = {
            "ready": True,
            "host": "127.0.0.1",
            "port": listener.getsockname()[1],
            "user": user,
            "identity": str(folder / "identity"),
            "fingerprint": host_key.fingerprint,
            "pid": os.getpid(),
        }
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        SshServer(settings, listener).serve()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="edgeq.testing.loopback", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--fault", choices=[fault.value for fault in Fault], default="none")
    parser.add_argument("--home-size", type=int, default=None, help="bytes of a home folder that fills up")
    parser.add_argument("--until-eof", action="store_true", help="end when standard input ends")
    return parser.parse_args()


def _key(path: Path) -> paramiko.PKey:
    if not path.exists():
        key = Ed25519PrivateKey.generate()
        data = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
    return paramiko.Ed25519Key.from_private_key_file(str(path))


def _path() -> str:
    # A device has a Python of its own. Here that is the one under our virtual environment, since not every
    # machine has another; its site-packages, and so our own runtime, are not on the device's path.
    base = Path(getattr(sys, "_base_executable", None) or sys.executable).resolve().parent
    return os.pathsep.join(dict.fromkeys([str(base), "/usr/local/bin", "/usr/bin", "/bin"]))


def _end(_signal: int = 0, _frame: FrameType | None = None) -> None:
    kill_all()
    os._exit(0)


def _end_on_signal() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)


def _end_with_parent() -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    _end()


if __name__ == "__main__":
    main()
