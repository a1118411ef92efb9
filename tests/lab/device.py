"""A device in namespaces of this machine: its own root, host name, processes and, where wanted, network."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.lab.access import Access, free_port, make_key, wait_for_ssh
from tests.lab.boards import Board
from tests.lab.needs import tool
from tests.lab.roots import UID, USER

_INSIDE = Path(__file__).with_name("inside.py")
_BOOT_S = 90.0
_DOWN_S = 10.0
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What a device is made of; none of it is changed by a device, whose writes go to a layer of its own.

    Attributes:
        layers: read-only folders that make up its root, the topmost first.
        board: the content of /proc and /sys; None shows those of this machine, without its /sys.
        cpu_list: whether /sys states the number of processors (see `Board.cpu_list`).
        home: the login folder.
        sshd: the server below the root, and its settings beyond the usual ones.
    """

    layers: tuple[Path, ...]
    board: Board | None = None
    cpu_list: bool = True
    user: str = USER
    uid: int = UID
    home: str = f"/home/{USER}"
    server_uid: int = 0
    sshd: tuple[str, ...] = ("/usr/sbin/sshd", "-f", "/etc/ssh/sshd_config")
    host_key: str = "/etc/ssh/ssh_host_ed25519_key"
    environment: Mapping[str, str] = field(default_factory=lambda: {"PATH": _PATH})
    tmpfs: Mapping[str, str] = field(
        default_factory=lambda: {"/run": "mode=755,size=8m", "/tmp": "mode=1777,size=64m"}
    )
    shared_memory: bool = True
    proc_options: str = ""
    read_only: tuple[str, ...] = ()

    def with_layer(self, layer: Path) -> Spec:
        """Return the same device with one more layer on top."""
        return replace(self, layers=(layer, *self.layers))


class LabDevice:
    """A device that can be booted, cut from its power, and booted again; its files are kept in between.

    Attributes:
        access: how it is reached.
        upper: all that it wrote: the topmost layer of its root.
        namespaces: the process namespaces that it had so far; see `tests.lab.leftovers`.
    """

    def __init__(
        self,
        spec: Spec,
        folder: Path,
        *,
        name: str,
        identity: Path,
        host: str = "127.0.0.1",
        port: int | None = None,
        netns: str | None = None,
    ) -> None:
        self._spec = spec
        self._folder = folder
        self._netns = netns
        self._process: subprocess.Popen[bytes] | None = None
        self.namespaces: list[str] = []
        self.upper = folder / "upper"
        for path in (self.upper, folder / "work", folder / "root"):
            path.mkdir(parents=True)
        self.access = Access(
            name=name,
            host=host,
            port=port or free_port(host),
            user=spec.user,
            identity=identity,
            fingerprint=self._install(identity, name),
        )

    def _install(self, identity: Path, name: str) -> str:
        """Put the host key and the login key into the device's own layer."""
        key = self._folder / "host_key"
        fingerprint = make_key(key, name)
        placed = self.upper / self._spec.host_key.lstrip("/")
        self._make_folder(placed.parent)
        shutil.copyfile(key, placed)
        placed.chmod(0o600)
        os.chown(placed, self._spec.server_uid, self._spec.server_uid)
        ssh = self.home / ".ssh"
        self._make_folder(ssh)
        shutil.copyfile(identity.with_suffix(".pub"), ssh / "authorized_keys")
        for path in (self.home, ssh, ssh / "authorized_keys"):
            os.chown(path, self._spec.uid, self._spec.uid)
        self.home.chmod(0o755)
        ssh.chmod(0o700)
        return fingerprint

    def _make_folder(self, folder: Path) -> None:
        """Make a folder in the device's layer; what is there in the layers below keeps its owner and mode."""
        for path in [*reversed(folder.relative_to(self.upper).parents), folder.relative_to(self.upper)]:
            (self.upper / path).mkdir(exist_ok=True)
            for layer in self._spec.layers:
                if (layer / path).is_dir():
                    shutil.copystat(layer / path, self.upper / path)
                    os.chown(self.upper / path, (layer / path).stat().st_uid, (layer / path).stat().st_gid)
                    break

    @property
    def home(self) -> Path:
        """What the device wrote into its login folder, as seen from here."""
        return self.upper / self._spec.home.lstrip("/")

    @property
    def running(self) -> bool:
        """Whether it has power."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """The process that keeps it running; None without power."""
        return None if self._process is None else self._process.pid

    def boot(self) -> float:
        """Start it, wait until it answers, and return the seconds that took."""
        self.power_on()
        return self.wait()

    def power_on(self) -> None:
        """Start it; `wait` says when it answers.

        Call it from the thread that outlives the device: the kernel ends the device with the thread, so that
        nothing is left behind when the tests are killed.
        """
        plan = self._folder / "plan.json"
        plan.write_text(json.dumps(self._plan()))
        argv = [tool("setpriv"), "--pdeathsig", "KILL"]
        argv += [tool("unshare"), "--mount", "--uts", "--pid", "--ipc", "--fork", "--kill-child"]
        if self._netns is not None:
            argv = [tool("nsenter"), f"--net=/run/netns/{self._netns}", *argv]
        environment = dict(os.environ, PATH=f"{os.environ.get('PATH', '')}:{_PATH}")
        if self._spec.board is not None:
            environment["QEMU_CPU"] = self._spec.board.cpu
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*argv, sys.executable, "-I", str(_INSIDE), str(plan)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )

    @property
    def log(self) -> Path:
        """What its sshd said."""
        return self._folder / "log"

    def wait(self) -> float:
        """Wait until it answers, and return after how many seconds it did."""
        seconds = wait_for_ssh(self.access.host, self.access.port, _BOOT_S, alive=self._reason)
        self._note_namespace()
        return seconds

    def cut(self) -> None:
        """Take its power away: every process ends at once, none is asked. What is in the page cache stays."""
        if self._process is None:
            return
        self.power_off()
        self._process.wait()
        self._process = None
        deadline_s = time.monotonic() + _DOWN_S
        while processes_in(self.namespaces):
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"{self.access.name}: processes live on without power")
            time.sleep(0.02)

    def power_off(self) -> None:
        """Begin a cut; `cut` waits until it is done."""
        if self._process is not None:
            self._note_namespace()
            self._process.send_signal(signal.SIGKILL)

    def _reason(self) -> str | None:
        if self.running:
            return None
        return self.log.read_text(errors="replace")[-500:] or "without a word"

    def _note_namespace(self) -> None:
        assert self._process is not None
        pid = self._process.pid
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                namespace = os.readlink(f"/proc/{child}/ns/pid")
                if namespace not in (*self.namespaces, os.readlink("/proc/self/ns/pid")):
                    self.namespaces.append(namespace)

    def _plan(self) -> dict[str, object]:
        spec, board = self._spec, self._spec.board
        key = ["-o", f"HostKey={spec.host_key}", "-o", "PidFile=none", "-o", "MaxStartups=100"]
        key += ["-p", str(self.access.port), "-o", f"ListenAddress={self.access.host}"]
        settings = dict(spec.environment)
        if board is not None:
            # sshd gives its sessions an environment of their own, and binfmt's qemu reads this from there.
            settings["QEMU_CPU"] = board.cpu
            key += ["-o", f"SetEnv=QEMU_CPU={board.cpu}"]
        files = {"/etc/hostname": f"{self.access.name}\n"} if spec.server_uid == 0 else {}
        if spec.server_uid == 0:
            files["/etc/hosts"] = f"127.0.0.1 localhost\n127.0.1.1 {self.access.name}\n"
            files["/run/sshd/.keep"] = ""
        if board is not None:
            files |= {f"/sys/{name}": text for name, text in board.sys().items()}
        if board is not None and spec.cpu_list:
            files |= {f"/sys/{name}": text for name, text in board.cpu_list().items()}
        return {
            "root": str(self._folder / "root"),
            "lower": [str(layer) for layer in spec.layers],
            "upper": str(self.upper),
            "work": str(self._folder / "work"),
            "hostname": self.access.name,
            "tmpfs": dict(spec.tmpfs),
            "shared_memory": spec.shared_memory,
            "proc_options": spec.proc_options,
            "files": files,
            "proc": board.proc() if board is not None else {},
            "read_only": list(spec.read_only),
            "argv": [*spec.sshd, "-D", "-e", *key],
            "environment": settings,
            "uid": spec.server_uid,
        }


@contextlib.contextmanager
def running(device: LabDevice) -> Iterator[LabDevice]:
    """Have a device run for the length of a `with` block; cut it at the end, whatever happened."""
    try:
        device.boot()
        yield device
    finally:
        device.cut()


def processes_in(namespaces: list[str]) -> list[str]:
    """Return the processes that live in any of these process namespaces, as `PID NAME`."""
    lines = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if os.readlink(entry / "ns/pid") in namespaces:
                lines.append(f"{entry.name} {(entry / 'comm').read_text().strip()}")
    return lines


def layer_of(device: LabDevice, folder: Path, *parts: str) -> Path:
    """Copy parts of what a device wrote into its login folder, as a layer for devices that have it already.

    Args:
        parts: below the login folder, such as `.edgeq/runtime`.
    """
    home = device.home.relative_to(device.upper)
    for part in parts:
        target = folder / home / part
        for parent in reversed(target.relative_to(folder).parents):
            path = folder / parent
            path.mkdir(exist_ok=True)
            source = device.upper / parent
            if source.is_dir():
                shutil.copystat(source, path)
                os.chown(path, source.stat().st_uid, source.stat().st_gid)
        subprocess.run(["cp", "-a", str(device.upper / home / part), str(target)], check=True)
    return folder


def without(folder: Path, root: Path, pattern: str) -> Path:
    """Make a layer under which what a glob pattern matches in a root is not there."""
    for path in root.glob(pattern):
        hidden = folder / path.relative_to(root)
        hidden.parent.mkdir(parents=True, exist_ok=True)
        os.mknod(hidden, stat.S_IFCHR, 0)  # how an overlay says that something is gone
    return folder
