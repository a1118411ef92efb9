"""SSH by paramiko: an open connection that notices when the other end is gone."""

from __future__ import annotations

import contextlib
import shlex
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import paramiko

from edgeq.errors import DeviceTimeout, LinkLost
from edgeq.fleet.handshake import Address, open_session, shown_key
from edgeq.fleet.hostkeys import HostKey, check_pinned
from edgeq.fleet.login import log_in
from edgeq.fleet.ssh_command import SshCommand
from edgeq.fleet.transport import Limits
from edgeq.values import Device


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """How a dead connection is noticed.

    Attributes:
        every_s: how often the other side is asked for a sign of life.
        patience_s: how long there may be none, and no byte that moves, before the connection is given up.
    """

    every_s: float = 5.0
    patience_s: float = 20.0


def connect(device: Device, *, timeout_s: float, watch: Watch = Watch()) -> SshTransport:
    """Return a connection to a device whose host key is the pinned one.

    Args:
        timeout_s: bound of each step: reaching it, its banner, the key exchange, the login.

    Raises:
        TransportError: by its subclass what failed; HostKeyMismatch and AuthenticationFailed are final.
    """
    pinned = HostKey.parse(device.host_key)
    address = Address(name=device.name, host=device.host, port=device.port)
    session = open_session(address, timeout_s=timeout_s, prefer_key_type=pinned.type)
    try:
        check_pinned(device.name, pinned=pinned, shown=shown_key(session))
        log_in(session, name=device.name, user=device.user, identity=device.identity, timeout_s=timeout_s)
    except BaseException:
        session.close()
        raise
    return SshTransport(session, name=device.name, timeout_s=timeout_s, watch=watch)


class SshTransport:
    """A logged-in connection; `Transport` over paramiko.

    paramiko itself does not notice a dead path. A thread asks the other side for a sign of life every few
    seconds; when none comes, and no bytes move, the connection is closed and whoever waits gets an error.
    """

    def __init__(self, session: paramiko.Transport, *, name: str, timeout_s: float, watch: Watch) -> None:
        self._session = session
        self._name = name
        self._timeout_s = timeout_s
        self._watch = watch
        self._alive_s = time.monotonic()
        self._died: str | None = None
        self._closing = threading.Event()
        for work in (self._ping, self._judge):
            threading.Thread(target=work, name=f"edgeq-{name}{work.__name__}", daemon=True).start()

    def run(
        self,
        argv: list[str],
        *,
        stdin: Iterable[bytes],
        limits: Limits,
        on_sent: Callable[[int], None] | None = None,
    ) -> SshCommand:
        """Start a command; see `Transport.run`.

        Raises:
            LinkLost: the connection is gone.
            DeviceTimeout: the device does not open a channel in time.
        """
        try:
            channel = self._session.open_session(timeout=self._timeout_s)
            channel.settimeout(self._timeout_s)
            channel.exec_command(shlex.join(argv))
        except (paramiko.SSHException, EOFError, OSError) as error:
            gone = not self._session.is_active()
            self.close()
            if gone:
                raise self.lost() from error
            raise DeviceTimeout(
                self._name,
                f"starts no command within {self._timeout_s:.0f} s ({str(error) or 'no answer'})",
            ) from error
        return SshCommand(channel, self, stdin=stdin, limits=limits, on_sent=on_sent)

    @property
    def name(self) -> str:
        """The device's name, for messages."""
        return self._name

    def note_life(self) -> None:
        """Bytes moved: the other side is there."""
        self._alive_s = time.monotonic()

    def lost(self) -> LinkLost | DeviceTimeout:
        """Return the error for a connection that is gone."""
        if self._died is not None:
            return DeviceTimeout(
                self._name, self._died, hint="check its power and its network, then try again"
            )
        return LinkLost(
            self._name,
            "the connection ended in the middle",
            hint="run the same command again: what arrived whole is kept and not sent twice",
        )

    def close(self) -> None:
        """End the connection; also frees a thread that waits in it."""
        self._closing.set()
        self._session.close()

    def _ping(self) -> None:
        while not self._closing.wait(self._watch.every_s):
            with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
                # Any answer will do, also the usual refusal; without one the call waits until the close.
                self._session.global_request("keepalive@openssh.com", wait=True)
                if self._session.is_active():
                    self.note_life()

    def _judge(self) -> None:
        while not self._closing.wait(min(1.0, self._watch.every_s)):
            silent_s = time.monotonic() - self._alive_s
            if silent_s > self._watch.patience_s:
                self._died = f"gave no sign of life for {silent_s:.3g} s"
                self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
