"""The transports under one name each, as their contract's tests use them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from edgeq.fleet.openssh import transport as openssh
from edgeq.fleet.ssh import transport as ssh
from edgeq.fleet.ssh.keepalive import USUAL, Watch
from edgeq.fleet.transport import Ended, Limits, Transport
from edgeq.values import Device

# A verb's own deadline is minutes: it is not what notices a dead link.
# Wide: what a transport carries is tested here, not how much an answer may hold.
LIMITS = Limits(first_s=600, silence_s=600, total_s=1200, output_bytes=2**30)
ADAPTERS: dict[str, Callable[..., Transport]] = {"paramiko": ssh.connect, "openssh": openssh.connect}
# ssh counts its questions in whole seconds.
QUICK = {"paramiko": Watch(every_s=0.2, patience_s=1.0), "openssh": Watch(every_s=1.0, patience_s=2.0)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adapter:
    """One way to connect, as the tests use it."""

    name: str

    @property
    def quick(self) -> Watch:
        return QUICK[self.name]

    def connect(self, device: Device, *, timeout_s: float = 9.0, watch: Watch = USUAL) -> Transport:
        return ADAPTERS[self.name](device, timeout_s=timeout_s, watch=watch)


def endless() -> Iterator[bytes]:
    while True:
        yield bytes(65536)


def use(
    transport: Transport, argv: list[str], data: Any = (), limits: Limits = LIMITS
) -> tuple[list[bytes], Ended]:
    running = transport.run(argv, stdin=data, limits=limits)
    lines = list(running.lines())
    return lines, running.ended()
