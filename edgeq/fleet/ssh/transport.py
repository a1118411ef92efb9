"""Connect to a device by paramiko, with a watchdog that detects a dead link."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterable

import paramiko
from paramiko.common import MSG_CHANNEL_REQUEST

from edgeq.errors import DeviceTimeout, LinkLost, TransportError
from edgeq.fleet.ssh.command import SshCommand
from edgeq.fleet.ssh.handshake import shown_key
from edgeq.fleet.ssh.hostkeys import HostKey, check_pinned, parse_keys
from edgeq.fleet.ssh.keepalive import STEP_S, USUAL, Watch, Watchdog
from edgeq.fleet.ssh.login import Attempts, KeysLeft, log_in
from edgeq.fleet.ssh.route import Route, RouteSession, open_route, resolve_route
from edgeq.fleet.transport import SESSION_WAIT_S, ClosedAtExit, Limits
from edgeq.values import Device

# A server that closes each connection after some refused keys bans an address that goes on for long.
_MOST_CONNECTIONS = 3


def connect(device: Device, *, timeout_s: float = STEP_S, watch: Watch = USUAL) -> SshTransport:
    """Return a connection to a device whose host key is the pinned one.

    Args:
        timeout_s: time limit of each step: connecting, the banner, the key exchange, the login.

    Raises:
        TransportError: the subclass says what failed; HostKeyMismatch and AuthenticationFailed are permanent.
    """
    pinned = HostKey.parse(device.host_key)
    route = route_of(device)
    attempts = Attempts()
    for left in reversed(range(_MOST_CONNECTIONS)):
        opened = open_route(route, timeout_s=timeout_s, prefer_key_type=pinned.type)
        try:
            check_pinned(device.name, pinned=pinned, shown=shown_key(opened.session))
            # The keys of an agent may be more than the server accepts attempts in one connection.
            login = route.hops[-1].login
            log_in(
                opened.session,
                login,
                name=device.name,
                timeout_s=timeout_s,
                attempts=attempts,
                more=left > 0,
            )
        except KeysLeft:
            opened.close()
        except BaseException:
            opened.close()
            raise
        else:
            break
    return SshTransport(opened, name=device.name, timeout_s=timeout_s, watch=watch)


def route_of(device: Device) -> Route:
    """Return the route to a device of the inventory."""
    return resolve_route(
        name=device.name,
        host=device.host,
        port=device.port,
        user=device.user,
        identity=device.identity,
        jump=device.jump,
        ssh_config=device.ssh_config,
        jump_pins=parse_keys(device.jump_host_key) if device.jump_host_key is not None else (),
    )


class SshTransport(ClosedAtExit):
    """A logged-in connection; `Transport` over paramiko, watched by a `Watchdog`."""

    def __init__(self, opened: RouteSession, *, name: str, timeout_s: float, watch: Watch) -> None:
        self._opened = opened
        self._session = opened.session
        self._name = name
        self._timeout_s = timeout_s
        self._watchdog = Watchdog(opened.session, opened.life, name=name, watch=watch)

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
            LinkLost: the connection was lost.
            DeviceTimeout: the device opens no channel in time.
            TransportError: the server refuses another session.
        """
        problem = f"did not start a command within {self._timeout_s:.0f} s"
        try:
            with self._watchdog.at_most(self._timeout_s, problem):
                channel = self._open()
                _start(self._session, channel, shlex.join(argv))
        except paramiko.ChannelException as error:
            raise TransportError(
                self._name,
                f"refuses to open a session: {error.text or 'no reason given'}",
                hint="check MaxSessions of its SSH server",
            ) from error
        except (paramiko.SSHException, EOFError, OSError) as error:
            gone = not self._session.is_active()
            self.close()
            if gone:
                raise self.lost() from error
            raise DeviceTimeout(self._name, f"{problem} ({str(error) or 'no response'})") from error
        return SshCommand(channel, self, stdin=stdin, limits=limits, on_sent=on_sent)

    def _open(self) -> paramiko.Channel:
        # With MaxSessions 1, the server may not have closed the session of the previous command yet.
        until_s = time.monotonic() + SESSION_WAIT_S
        while True:
            try:
                return self._session.open_session(timeout=self._timeout_s)
            except paramiko.ChannelException:
                if time.monotonic() > until_s:
                    raise
                time.sleep(SESSION_WAIT_S / 10)

    @property
    def name(self) -> str:
        """The device's name, for messages."""
        return self._name

    def lost(self) -> LinkLost | DeviceTimeout:
        """Return the error for a lost connection."""
        if self._watchdog.reason is not None:
            return DeviceTimeout(
                self._name, self._watchdog.reason, hint="check its power and its network, then try again"
            )
        return LinkLost(
            self._name,
            "the connection was lost",
            hint="run the same command again: data that arrived is not sent again",
        )

    def close(self) -> None:
        """Close the connection; a thread that waits in it is released."""
        self._watchdog.stop()
        self._opened.close()


def _start(session: paramiko.Transport, channel: paramiko.Channel, command: str) -> None:
    # `exec_command` waits for the reply; this sends the following data meanwhile. A refusal closes the
    # channel, which the reader notices.
    message = paramiko.Message()
    message.add_byte(bytes([MSG_CHANNEL_REQUEST]))
    message.add_int(channel.remote_chanid)
    message.add_string("exec")
    message.add_boolean(True)
    message.add_string(command)
    session._send_user_message(message)  # type: ignore[attr-defined] # noqa: SLF001 # as its `exec_command`
