"""Many devices on one network: each in a network namespace, all on a bridge that leads nowhere else."""

from __future__ import annotations

import contextlib
import fcntl
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.lab import cache, leftovers
from tests.lab.device import LabDevice, Spec
from tests.lab.needs import tool

PREFIX = "eqlab"
BRIDGE = f"{PREFIX}-br"
# Set aside for tests of networks (RFC 2544): no real network has it.
_SUBNET = "198.18.0.0/16"
_HERE = "198.18.0.1"
# A route worse than every real one: without the bridge, no packet for a device leaves by the default route.
_BLACKHOLE = f"blackhole {_SUBNET} metric 4000000"


class Network:
    """A bridge with devices on it, and what can go wrong between them and this machine."""

    def __init__(self, folder: Path, identity: Path) -> None:
        self._folder = folder
        self._identity = identity
        self._disturbed: set[LabDevice] = set()
        self.devices: list[LabDevice] = []

    def add(self, spec: Spec, count: int) -> list[LabDevice]:
        """Make that many devices, boot them at once, and return them when all answer."""
        numbers = range(len(self.devices), len(self.devices) + count)
        _ip(*(f"netns add {PREFIX}-{n}" for n in numbers))
        _ip(*(f"link add {PREFIX}{n} type veth peer name eth0 netns {PREFIX}-{n}" for n in numbers))
        _ip(*(f"link set {PREFIX}{n} master {BRIDGE} up" for n in numbers))
        made = []
        for n in numbers:
            host = f"198.18.{1 + n // 200}.{1 + n % 200}"
            for command in (f"addr add {host}/16 dev eth0", "link set eth0 up", "link set lo up"):
                _run("ip", "-n", f"{PREFIX}-{n}", *command.split())
            made.append(
                LabDevice(
                    spec,
                    self._folder / f"edge-{n:02}",
                    name=f"edge-{n:02}",
                    identity=self._identity,
                    host=host,
                    port=22,
                    netns=f"{PREFIX}-{n}",
                )
            )
        self.devices += made
        for device in made:
            device.power_on()
        for device in made:
            device.wait()
        return made

    def partition(self, device: LabDevice) -> None:
        """Drop every frame from and to a device, without a word to either side."""
        self._disturbed.add(device)
        _ip(f"link set {PREFIX}{self._number(device)} down")

    def lose_answers(self, device: LabDevice) -> None:
        """Let every packet reach the device, and none come back."""
        self._disturbed.add(device)
        rules = (
            "add table inet lab; add chain inet lab out { type filter hook output priority 0; policy drop; }"
        )
        self._in(device, "nft", rules)

    def slow(self, device: LabDevice, kbit_per_s: int) -> None:
        """Bound the rate, both ways."""
        self._disturbed.add(device)
        shape = ["root", "tbf", "rate", f"{kbit_per_s}kbit", "burst", "16kbit", "latency", "400ms"]
        _run("tc", "qdisc", "replace", "dev", f"{PREFIX}{self._number(device)}", *shape)
        self._in(device, "tc", "qdisc", "replace", "dev", "eth0", *shape)

    def heal(self, device: LabDevice) -> None:
        """End all of the above."""
        if device not in self._disturbed:
            return
        self._disturbed.discard(device)
        number = self._number(device)
        self._in(device, "nft", "flush ruleset")
        _run("tc", "qdisc", "del", "dev", f"{PREFIX}{number}", "root", check=False)  # there may be none
        self._in(device, "tc", "qdisc", "del", "dev", "eth0", "root", check=False)
        _ip(f"link set {PREFIX}{number} up")

    def cut_power(self, device: LabDevice) -> None:
        """End a device at once. The link goes first: a device without power answers nothing, not even RST."""
        self.partition(device)
        device.cut()

    def boot(self, device: LabDevice) -> None:
        """Give it power again, and wait until it answers."""
        self.heal(device)
        device.boot()

    def close(self) -> None:
        """Take everything away."""
        for device in self.devices:
            device.power_off()
        for device in self.devices:
            device.cut()
        remove_all()

    def _number(self, device: LabDevice) -> int:
        return self.devices.index(device)

    def _in(self, device: LabDevice, name: str, *argv: str, check: bool = True) -> None:
        _run("ip", "netns", "exec", f"{PREFIX}-{self._number(device)}", tool(name), *argv, check=check)


@contextlib.contextmanager
def network(folder: Path, identity: Path) -> Iterator[Network]:
    """Have the network for the length of a `with` block; sessions that want it at once take turns."""
    cache.FOLDER.mkdir(parents=True, exist_ok=True)
    with (cache.FOLDER / "network.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        # The lock is ours, so whatever is there belongs to a session that was killed.
        remove_all()
        made = Network(folder, identity)
        try:
            _ip(
                f"link add {BRIDGE} type bridge", f"addr add {_HERE}/16 dev {BRIDGE}", f"link set {BRIDGE} up"
            )
            _ip(f"route replace {_BLACKHOLE}")
            yield made
        finally:
            made.close()
            leftover = leftovers.left_on_network(PREFIX)
            assert not leftover, "left behind: " + "; ".join(leftover)


def remove_all() -> None:
    """Remove every namespace, link and route of the lab."""
    shown = _run("ip", "netns", "list")
    for line in shown.splitlines():
        if line.startswith(f"{PREFIX}-"):
            _run("ip", "netns", "del", line.split()[0])
    # A namespace takes its end of a pair with it, and so the other end, a moment later.
    for line in _run("ip", "-brief", "link").splitlines():
        if line.startswith(PREFIX):
            _run("ip", "link", "del", line.split()[0].partition("@")[0], check=False)
    _run("ip", "route", "del", *_BLACKHOLE.split(), check=False)


def _ip(*commands: str) -> None:
    if commands:
        _run("ip", "-batch", "-", stdin="".join(f"{command}\n" for command in commands))


def _run(name: str, *argv: str, stdin: str | None = None, check: bool = True) -> str:
    done = subprocess.run([tool(name), *argv], input=stdin, capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise RuntimeError(f"{name} {' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout
