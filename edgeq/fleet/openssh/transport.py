"""Connect to a device by the `ssh` program: one master per connection, commands through its socket."""

from __future__ import annotations

import os
import shlex
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from edgeq.errors import DeviceTimeout, LinkLost, TransportError, Unreachable
from edgeq.fleet.openssh import argv
from edgeq.fleet.openssh.command import OpensshCommand
from edgeq.fleet.openssh.diagnosis import SshLog, end_error, login_error
from edgeq.fleet.openssh.master import Master
from edgeq.fleet.openssh.mux import Control, MuxError, MuxRefused
from edgeq.fleet.openssh.session_dir import SessionDir, config_text, make_session_dir
from edgeq.fleet.ssh.hostkeys import HostKey
from edgeq.fleet.ssh.keepalive import STEP_S, USUAL, Watch
from edgeq.fleet.ssh.known_hosts import host_name
from edgeq.fleet.ssh.transport import route_of
from edgeq.fleet.transport import SESSION_WAIT_S, ClosedAtExit, Limits
from edgeq.values import Device

# Connecting, the banner, the key exchange, the login: each within the time limit of a step.
_STEPS = 4
_GONE_S = 3.0


def connect(device: Device, *, timeout_s: float = STEP_S, watch: Watch = USUAL) -> OpensshTransport:
    """Return a connection to a device whose host key is the pinned one.

    Args:
        timeout_s: idle timeout of each step of the connection.

    Raises:
        ToolMissing: there is no ssh program.
        TransportError: the subclass says what failed; HostKeyMismatch and AuthenticationFailed are permanent.
    """
    ssh = argv.find_ssh(device.name)
    session_dir = make_session_dir()
    try:
        session_dir.known_hosts.write_text(argv.known_hosts_line(device), encoding="ascii")
        _write_config(device, session_dir, timeout_s=timeout_s, watch=watch)
        master = Master(
            argv.master_argv(ssh, device, session_dir), folder=session_dir.folder, name=device.name
        )
        try:
            _wait(master, device, session_dir, timeout_s=timeout_s)
        except BaseException:
            master.end()
            raise
        return OpensshTransport(master, device, session_dir, timeout_s=timeout_s, watch=watch)
    except BaseException:
        session_dir.remove()
        raise


def shown_host_key(device: Device, *, timeout_s: float = STEP_S) -> HostKey:
    """Return the device's host key, by the route that ssh itself resolves, without a login.

    Raises:
        TransportError: the subclass says what failed.
    """
    ssh = argv.find_ssh(device.name)
    session_dir = make_session_dir()
    try:
        _write_config(device, session_dir, timeout_s=timeout_s, watch=USUAL)
        master = Master(argv.look_argv(ssh, device, session_dir), folder=session_dir.folder, name=device.name)
        try:
            # The login "none" is refused, so ssh ends; the key is written once it is verified.
            master.wait_for(session_dir.socket, silence_s=timeout_s, total_s=_STEPS * timeout_s)
            if session_dir.known_hosts.exists():
                return HostKey.parse(session_dir.known_hosts.read_text(encoding="ascii").partition(" ")[2])
            master.wait(_GONE_S)
            raise login_error(_log_of(device, master))
        except TimeoutError as error:
            raise _timeout_error(device, master, str(error)) from error
        finally:
            master.end()
    finally:
        session_dir.remove()


class OpensshTransport(ClosedAtExit):
    """A logged-in `ssh` master; `Transport` over its control socket, with a watchdog."""

    def __init__(
        self, master: Master, device: Device, session_dir: SessionDir, *, timeout_s: float, watch: Watch
    ) -> None:
        self._master = master
        self._device = device
        self._session_dir = session_dir
        self._timeout_s = timeout_s
        self._watch = watch
        self._hang: str | None = None
        self._closing = threading.Event()
        self._closed = threading.Lock()
        threading.Thread(target=self._guard, name=f"edgeq-watch-{device.name}", daemon=True).start()

    def run(
        self,
        argv: list[str],
        *,
        stdin: Iterable[bytes],
        limits: Limits,
        on_sent: Callable[[int], None] | None = None,
    ) -> OpensshCommand:
        """Start a command; see `Transport.run`.

        Raises:
            LinkLost: the connection was lost.
            DeviceTimeout: the device opens no channel in time.
            TransportError: the server refuses another session.
        """
        until_s = time.monotonic() + SESSION_WAIT_S
        while True:
            try:
                return self._start(argv, stdin=stdin, limits=limits, on_sent=on_sent)
            except MuxRefused as error:
                # With MaxSessions 1, the server may not have closed the session of the previous command yet.
                if time.monotonic() > until_s:
                    raise TransportError(
                        self.name,
                        f"refuses to open a session: {error}",
                        hint="check MaxSessions of its SSH server",
                    ) from error
            time.sleep(SESSION_WAIT_S / 10)

    def _start(
        self,
        argv: list[str],
        *,
        stdin: Iterable[bytes],
        limits: Limits,
        on_sent: Callable[[int], None] | None,
    ) -> OpensshCommand:
        problem = f"did not start a command within {self._timeout_s:.0f} s"
        ends = [*os.pipe(), *os.pipe(), *os.pipe()]
        master_ends, own_ends = (ends[0], ends[3], ends[5]), (ends[1], ends[2], ends[4])
        control: Control | None = None
        signals = self.signals
        try:
            control = Control(self._session_dir.socket, timeout_s=self._timeout_s)
            control.start(shlex.join(argv), master_ends, timeout_s=self._timeout_s)
        except BaseException as error:
            for end in own_ends:
                os.close(end)
            if control is not None:
                control.close()
            if isinstance(error, MuxError):
                raise self.lost() from error
            if isinstance(error, TimeoutError):
                self.close()
                raise DeviceTimeout(self.name, problem) from error
            raise
        finally:
            for end in master_ends:
                os.close(end)
        return OpensshCommand(
            control, self, own_ends, stdin=stdin, limits=limits, on_sent=on_sent, signals_before=signals
        )

    @property
    def name(self) -> str:
        """The device's name, for messages."""
        return self._device.name

    @property
    def ssh_pid(self) -> int:
        """The process id of the master, which is also that of its process group."""
        return self._master.pid

    @property
    def folder(self) -> Path:
        """The private folder of the control socket, which exists as long as the connection."""
        return self._session_dir.folder

    @property
    def signals(self) -> int:
        """The number of commands that ended by a signal so far."""
        return self._master.signals

    @property
    def alive(self) -> bool:
        """Whether the master responds, which it does as long as it is connected."""
        try:
            with Control(self._session_dir.socket, timeout_s=self._timeout_s) as control:
                control.check_alive(timeout_s=self._timeout_s)
        except (MuxError, TimeoutError):
            return False
        return True

    def lost(self) -> LinkLost | DeviceTimeout:
        """Return the error for a lost connection, after ssh has logged the reason."""
        self._master.wait(_GONE_S)
        self.close()
        if self._hang is not None:
            return DeviceTimeout(self.name, self._hang, hint="run the same command again")
        return end_error(_log_of(self._device, self._master))

    def close(self) -> None:
        """Close the connection and end its processes; a thread that waits in it is released."""
        self._closing.set()
        with self._closed:
            self._master.end()
            self._session_dir.remove()

    def _guard(self) -> None:
        # ssh itself watches the link (ServerAliveInterval); this watches ssh.
        patience_s = self._watch.patience_s
        try:
            with Control(self._session_dir.socket, timeout_s=patience_s) as control:
                while not self._closing.wait(self._watch.every_s):
                    control.check_alive(timeout_s=patience_s)
        except MuxError:
            return  # it ended; readers notice it by the end of their streams
        except TimeoutError:
            if not self._closing.is_set():
                self._hang = f"the ssh program did not respond for {patience_s:.3g} s"
                self._master.kill()


def _write_config(device: Device, session_dir: SessionDir, *, timeout_s: float, watch: Watch) -> None:
    pinned = device.jump_host_key is not None
    if pinned:
        # Under the names that ssh looks up; if ssh resolves another route than edgeq, no key matches.
        hops = [hop for hop in route_of(device).hops[:-1] if isinstance(hop.pinned, HostKey)]
        lines = "".join(f"{host_name(hop.host, hop.port)} {hop.pinned}\n" for hop in hops)
        session_dir.jump_hosts.write_text(lines, encoding="ascii")
    text = config_text(
        device, timeout_s=timeout_s, alive=argv.alive(watch), jumps_pinned=session_dir if pinned else None
    )
    session_dir.config.write_text(text, encoding="utf-8")


def _wait(master: Master, device: Device, session_dir: SessionDir, *, timeout_s: float) -> None:
    try:
        ready = master.wait_for(session_dir.socket, silence_s=timeout_s, total_s=_STEPS * timeout_s)
    except TimeoutError as error:
        raise _timeout_error(device, master, str(error)) from error
    if not ready:
        master.wait(_GONE_S)
        raise login_error(_log_of(device, master))


def _timeout_error(device: Device, master: Master, how: str) -> TransportError:
    where = f"{device.host}:{device.port}"
    lines = master.lines()
    if not any("Connection established" in line for line in lines):
        return Unreachable(
            device.name,
            f"nothing answers at {where} ({how})",
            hint=f"is it switched on, and does `ssh -p {device.port} {device.host}` connect?",
        )
    if any("Authenticating to" in line for line in lines) and any("authenti" in line for line in lines[-3:]):
        return DeviceTimeout(device.name, f"no response to the login ({how})")
    return DeviceTimeout(
        device.name,
        f"{where} accepts connections but sends nothing ({how})",
        hint="restart its SSH server, or check its load",
    )


def _log_of(device: Device, master: Master) -> SshLog:
    return SshLog(device=device, alias=argv.alias(device), lines=master.lines())
