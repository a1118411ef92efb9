"""The virtual machine's disk: a 64-bit ARM Debian with systemd and sshd, made without starting it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path

from tests.lab import cache, roots
from tests.lab.access import make_key
from tests.lab.needs import tool
from tests.lab.roots import Recipe

RECIPE = Recipe(
    arch="arm64",
    packages=(
        *("systemd", "systemd-sysv", "dbus", "dbus-user-session", "libpam-systemd", "libpam-modules"),
        *("libpam-modules-bin", "libpam-runtime", "busybox-static", "linux-image-cloud-arm64", "e2fsprogs"),
        "sudo",
    ),
)
SIZE = "900M"
# Names of the parts in the image's folder.
KERNEL, INITRD, DISK, HOST_KEY = "vmlinuz", "initrd.gz", "disk.img", "host_key"

# In the order in which they need each other; ext4 is in the kernel itself.
_MODULES = (
    *("virtio_ring", "virtio", "virtio_mmio", "virtio_blk", "failover", "net_failover", "virtio_net"),
    *("rng-core", "virtio-rng"),
)
# The first process: drivers, network, root file system (mounting it replays its journal), login key.
_INIT = """#!/bin/sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t devtmpfs dev /dev
for m in /modules/*; do $b insmod $m; done
for word in $($b cat /proc/cmdline); do
  case $word in edgeq.key=*) key=${word#edgeq.key=};; edgeq.user=*) user=${word#edgeq.user=};; esac
done
$b ip link set lo up
$b ip addr add 10.0.2.15/24 dev eth0
$b ip link set eth0 up
i=0
while [ ! -b /dev/vda ] && [ $i -lt 200 ]; do $b sleep 0.05; i=$((i+1)); done
$b mount -t ext4 -o rw /dev/vda /new || { echo "cannot mount the disk"; $b poweroff -f; }
ssh=/new/home/$user/.ssh
$b mkdir -p $ssh
echo "ssh-ed25519 $key lab" > $ssh/authorized_keys
$b chmod 700 $ssh
$b chown -R 1000:1000 $ssh
$b mount --move /dev /new/dev
$b umount /proc
exec $b switch_root /new /sbin/init
"""
# What a first boot or an idle minute spends its time on; under emulation that is 15 s of 25.
_MASKED = (
    *("getty@tty1.service", "serial-getty@ttyAMA0.service", "getty-static.service", "getty.target"),
    *("systemd-hwdb-update.service", "systemd-journal-catalog-update.service", "ldconfig.service"),
    *("systemd-update-done.service", "systemd-firstboot.service", "systemd-update-utmp.service"),
    *("systemd-update-utmp-runlevel.service", "systemd-binfmt.service", "systemd-machine-id-commit.service"),
    *("systemd-boot-system-token.service", "systemd-pcrphase.service", "systemd-pcrphase-sysinit.service"),
    *("e2scrub_all.timer", "e2scrub_reap.service", "dpkg-db-backup.timer", "apt-daily.timer", "fstrim.timer"),
    *("apt-daily-upgrade.timer", "systemd-tmpfiles-clean.timer", "dev-hugepages.mount", "dev-mqueue.mount"),
    *("sys-kernel-debug.mount", "sys-kernel-tracing.mount", "sys-kernel-config.mount", "modprobe@.service"),
    *("sys-fs-fuse-connections.mount", "proc-sys-fs-binfmt_misc.automount", "systemd-timesyncd.service"),
    *("systemd-udevd.service", "systemd-udev-trigger.service", "systemd-udevd-kernel.socket"),
    *("systemd-udevd-control.socket", "systemd-random-seed.service", "systemd-modules-load.service"),
    *("systemd-network-generator.service", "kmod-static-nodes.service", "systemd-sysusers.service"),
    *("systemd-repart.service", "systemd-remount-fs.service", "systemd-ask-password-console.path"),
    *("systemd-ask-password-wall.path", "cryptsetup.target", "integritysetup.target", "veritysetup.target"),
    *("systemd-initctl.socket", "systemd-fsckd.socket", "systemd-journald-audit.socket", "remote-fs.target"),
    *("systemd-journal-flush.service", "systemd-tmpfiles-setup-dev.service", "systemd-sysctl.service"),
)
_GENERATORS = (
    "cryptsetup",
    "gpt-auto",
    "hibernate-resume",
    "integritysetup",
    "rc-local",
    "run",
    "system-update",
)
_MORE_GENERATORS = ("sysv", "veritysetup", "getty", "fstab", "debug")


def image() -> Path:
    """Return a folder with the kernel, the initial file system, the disk and its host key; built once."""
    key = cache.key_of(asdict(RECIPE), __file__, roots.__file__)
    return cache.built("machine-arm64", key, _build)


def _build(place: Path) -> None:
    root = place / "root"
    root.mkdir()
    roots.build(RECIPE, root)
    _kernel(root, place)
    _initrd(root, place)
    _configure(root, place)
    disk = place / DISK
    with disk.open("wb") as stream:
        stream.truncate(_bytes(SIZE))
    argv = ["-q", "-t", "ext4", "-F", "-E", "lazy_itable_init=1", "-d", str(root), str(disk)]
    subprocess.run([tool("mke2fs"), *argv], check=True)
    for name in ("root", "modules"):
        shutil.rmtree(place / name)


def _bytes(size: str) -> int:
    return int(size.removesuffix("M")) * 2**20


def _kernel(root: Path, place: Path) -> None:
    (kernel,) = root.glob("boot/vmlinuz-*")
    shutil.move(kernel, place / KERNEL)
    shutil.rmtree(root / "boot")
    (root / "boot").mkdir()
    # The root loads none: what the machine needs is in the initial file system.
    shutil.move(root / "usr/lib/modules", place / "modules")


def _initrd(root: Path, place: Path) -> None:
    tree = place / "initrd"
    for folder in ("bin", "proc", "sys", "dev", "new", "modules"):
        (tree / folder).mkdir(parents=True)
    shutil.copyfile(root / "usr/bin/busybox", tree / "bin/busybox")
    (tree / "bin/busybox").chmod(0o755)
    (tree / "bin/sh").symlink_to("busybox")
    for number, name in enumerate(_MODULES):
        for module in (place / "modules").rglob(f"{name}.ko"):  # none: built into this kernel
            shutil.copyfile(module, tree / "modules" / f"{number:02}-{module.name}")
    (tree / "init").write_text(_INIT)
    (tree / "init").chmod(0o755)
    names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    archive = subprocess.run(
        ["cpio", "--create", "--format=newc", "--owner=0:0", "--quiet"],
        input=names.encode(),
        capture_output=True,
        cwd=tree,
        check=True,
    )
    packed = subprocess.run(["gzip", "-1"], input=archive.stdout, capture_output=True, check=True)
    (place / INITRD).write_bytes(packed.stdout)
    shutil.rmtree(tree)


def _configure(root: Path, place: Path) -> None:
    """Do what the packages' scripts and a first boot would do."""
    subprocess.run([tool("systemd-sysusers"), f"--root={root}"], capture_output=True, check=True)
    etc = root / "etc"
    # With an empty one systemd takes this for a first boot, and applies every unit's preset.
    (etc / "machine-id").write_text(os.urandom(16).hex() + "\n")
    (etc / "fstab").write_text("")  # a line would wait for udev, which is not there
    (etc / "hostname").write_text("edge-vm\n")
    _login(root)
    # As on Raspberry Pi OS.
    (etc / "sudoers.d/lab").write_text(f"{roots.USER} ALL=(ALL) NOPASSWD: ALL\n")
    (etc / "sudoers.d/lab").chmod(0o440)
    make_key(place / HOST_KEY, "edge-vm")
    shutil.copyfile(place / HOST_KEY, etc / "ssh/ssh_host_ed25519_key")
    (etc / "ssh/ssh_host_ed25519_key").chmod(0o600)
    linger = root / "var/lib/systemd/linger"
    linger.mkdir(parents=True)
    (linger / roots.USER).touch()
    units = etc / "systemd/system"
    (units / "multi-user.target.wants").mkdir(parents=True, exist_ok=True)
    _link(units / "multi-user.target.wants/ssh.service", "/lib/systemd/system/ssh.service")
    _link(units / "default.target", "/lib/systemd/system/multi-user.target")
    for unit in _MASKED:
        _link(units / unit, "/dev/null")
    (etc / "systemd/system-generators").mkdir(exist_ok=True)
    for name in (*_GENERATORS, *_MORE_GENERATORS):
        _link(etc / f"systemd/system-generators/systemd-{name}-generator", "/dev/null")
    for name, text in {
        "system.conf.d": "[Manager]\nShowStatus=no\nDefaultTimeoutStopSec=10s\n",
        "journald.conf.d": "[Journal]\nStorage=volatile\n",
    }.items():
        (etc / "systemd" / name).mkdir()
        (etc / "systemd" / name / "lab.conf").write_text(text)
    for name in ("etc/.updated", "var/.updated"):
        (root / name).touch()


def _link(path: Path, target: str) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _login(root: Path) -> None:
    """Let sshd open sessions of systemd's, so that the user has services of its own."""
    pam = root / "etc/pam.d"
    for name, lines in {
        "common-auth": "auth required pam_unix.so\n",
        "common-account": "account required pam_unix.so\n",
        "common-password": "password required pam_unix.so yescrypt\n",
        "common-session-noninteractive": "session required pam_unix.so\n",
        "common-session": "session required pam_unix.so\nsession optional pam_systemd.so\n",
    }.items():
        (pam / name).write_text(lines)
    kept = [
        line
        for line in (pam / "sshd").read_text().splitlines()
        if not re.search(r"pam_(selinux|motd|mail|loginuid|keyinit|limits)", line)
    ]
    (pam / "sshd").write_text("\n".join(kept) + "\n")
    settings = root / "etc/ssh/sshd_config"
    settings.write_text(settings.read_text().replace("UsePAM no", "UsePAM yes"))
