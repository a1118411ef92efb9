"""A virtual machine: its kernel, file system and page cache are its own: a power cut is a real one."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.lab import vm_image
from tests.lab.access import Access, free_port, make_key, wait_for_ssh
from tests.lab.needs import tool
from tests.lab.roots import USER

_BOOT_S = 180.0
_MEMORY_MB = 768
_PROCESSORS = 2


class Machine:
    """A 64-bit ARM machine with systemd under qemu, without hardware support: many times slower than here.

    A kill of qemu is the power cut: what the guest had not handed to its disk is lost. A disk that loses or
    reorders what it had acknowledged is not modelled.
    """

    def __init__(self, folder: Path, identity: Path) -> None:
        built = vm_image.image()
        folder.mkdir(parents=True)
        self._folder = folder
        self._built = built
        subprocess.run(
            ["cp", "--sparse=always", str(built / vm_image.DISK), str(folder / "disk.img")], check=True
        )
        key = folder / "host_key"
        shutil.copyfile(built / vm_image.HOST_KEY, key)
        key.chmod(0o600)
        self._login_key = identity.with_suffix(".pub").read_text().split()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self.access = Access(
            name="edge-vm",
            host="127.0.0.1",
            port=free_port(),
            user=USER,
            identity=identity,
            fingerprint=make_key(key, "edge-vm"),
        )

    @property
    def console(self) -> Path:
        """What its kernel and systemd said, over all boots."""
        return self._folder / "console.log"

    def boot(self) -> float:
        """Start it, wait until it answers, and return the seconds that took."""
        kernel = "root=/dev/vda rw console=ttyAMA0 loglevel=7 net.ifnames=0 panic=-1 random.trust_cpu=1"
        kernel += f" mitigations=off audit=0 edgeq.user={USER} edgeq.key={self._login_key}"
        argv = [tool("setpriv"), "--pdeathsig", "KILL", tool("qemu-system-aarch64")]
        argv += ["-M", "virt,gic-version=2,highmem=off", "-cpu", "cortex-a72"]
        argv += ["-accel", "tcg,thread=multi,tb-size=256", "-m", str(_MEMORY_MB), "-smp", str(_PROCESSORS)]
        argv += ["-nodefaults", "-no-reboot", "-display", "none"]
        argv += ["-chardev", f"file,id=console,append=on,path={self.console}", "-serial", "chardev:console"]
        argv += ["-kernel", str(self._built / vm_image.KERNEL), "-initrd", str(self._built / vm_image.INITRD)]
        argv += ["-append", kernel]
        argv += ["-drive", f"if=none,id=disk,file={self._folder / 'disk.img'},format=raw,cache=writeback"]
        argv += ["-device", "virtio-blk-device,drive=disk", "-device", "virtio-rng-device"]
        # `restrict`: the guest reaches nothing outside.
        forward = f"tcp:{self.access.host}:{self.access.port}-:22"
        argv += [
            "-netdev",
            f"user,id=net,restrict=on,hostfwd={forward}",
            "-device",
            "virtio-net-device,netdev=net",
        ]
        with (self._folder / "qemu.log").open("ab") as log:
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return wait_for_ssh(self.access.host, self.access.port, _BOOT_S, alive=self._reason)

    def cut(self) -> None:
        """Take its power away."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def wait_off(self, seconds: float) -> None:
        """Wait until it turned itself off, as it was asked to by its own init system."""
        if self._process is not None:
            self._process.wait(seconds)
            self._process = None

    def _reason(self) -> str | None:
        if self._process is not None and self._process.poll() is None:
            return None
        log = (self._folder / "qemu.log").read_text(errors="replace")
        shown = self.console.read_text(errors="replace") if self.console.exists() else ""
        return (log + shown)[-500:] or "without a word"


@contextlib.contextmanager
def machine(folder: Path, identity: Path) -> Iterator[Machine]:
    """Have a machine run for the length of a `with` block."""
    made = Machine(folder, identity)
    try:
        made.boot()
        yield made
    finally:
        made.cut()
