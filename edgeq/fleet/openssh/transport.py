"""SSH by the `ssh` program: one master for the length of a connection, its commands through its socket."""

from __future__ import annotations

import os
import shlex
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from edgeq.errors import DeviceTimeout, LinkLost, TransportError, Unreachable
from edgeq.fleet.openssh import argv as words
from edgeq.fleet.openssh.command import OpensshCommand
from edgeq.fleet.openssh.diagnosis import Said, of_end, of_login
from edgeq.fleet.openssh.master import Master
from edgeq.fleet.openssh.mux import Control, MuxError, MuxRefused
from edgeq.fleet.openssh.session_dir import Place, config_text, make_place
from edgeq.fleet.ssh.hostkeys import HostKey
from edgeq.fleet.ssh.keepalive import STEP_S, USUAL, Watch
from edgeq.fleet.ssh.known_hosts import host_name
from edgeq.fleet.ssh.transport import route_of
from edgeq.fleet.transport import Limits
from edgeq.values import Device

# Reaching it, the banner, the key exchange, the login, each within the limit of a step.
_STEPS = 4
_GONE_S = 3.0


def connect(device: Device, *, timeout_s: float = STEP_S, watch: Watch = USUAL) -> OpensshTransport:
    """Return a connection to a device whose host key is the pinned one.

    Args:
        timeout_s: how long a step of the connection may be silent.

    Raises:
        ToolMissing: there is no ssh program.
        TransportError: by its subclass what failed; HostKeyMismatch and AuthenticationFailed are final.
    """
    ssh = words.find_ssh(device.name)
    place = make_place()
    try:
        place.known_hosts.write_text(words.known_hosts_line(device), encoding="ascii")
        _write_config(device, place, timeout_s=timeout_s, watch=watch)
        master = Master(words.master_argv(ssh, device, place), folder=place.folder, name=device.name)
        try:
            _wait(master, device, place, timeout_s=timeout_s)
        except BaseException:
            master.end()
            raise
        return OpensshTransport(master, device, place, timeout_s=timeout_s, watch=watch)
    except BaseException:
        place.remove()
        raise


def shown_host_key(device: Device, *, timeout_s: float = STEP_S) -> HostKey:
    """Return the host key that the device shows, by the way that ssh itself finds; nobody logs in.

    Raises:
        TransportError: by its subclass what failed.
    """
    ssh = words.find_ssh(device.name)
    place = make_place()
    try:
        _write_config(device, place, timeout_s=timeout_s, watch=USUAL)
        master = Master(words.look_argv(ssh, device, place), folder=place.folder, name=device.name)
        try:
            # No login by "none", so that it ends by itself; the key is written once it is proven.
            master.wait_for(place.socket, silence_s=timeout_s, total_s=_STEPS * timeout_s)
            if place.known_hosts.exists():
                return HostKey.parse(place.known_hosts.read_text(encoding="ascii").partition(" ")[2])
            master.wait(_GONE_S)
            raise of_login(_said(device, master))
        except TimeoutError as error:
            raise _silent(device, master, str(error)) from error
        finally:
            master.end()
    finally:
        place.remove()


class OpensshTransport:
    """A logged-in `ssh` master; `Transport` over its control socket, watched."""

    def __init__(
        self, master: Master, device: Device, place: Place, *, timeout_s: float, watch: Watch
    ) -> None:
        self._master = master
        self._device = device
        self._place = place
        self._timeout_s = timeout_s
        self._watch = watch
        self._found: str | None = None
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
            LinkLost: the connection is gone.
            DeviceTimeout: the device does not open a channel in time.
            TransportError: it opens no more of them.
        """
        problem = f"starts no command within {self._timeout_s:.0f} s"
        ends = [*os.pipe(), *os.pipe(), *os.pipe()]
        theirs, ours = (ends[0], ends[3], ends[5]), (ends[1], ends[2], ends[4])
        control: Control | None = None
        signals = self.signals
        try:
            control = Control(self._place.socket, timeout_s=self._timeout_s)
            control.start(shlex.join(argv), theirs, timeout_s=self._timeout_s)
        except BaseException as error:
            for end in ours:
                os.close(end)
            if control is not None:
                control.close()
            if isinstance(error, MuxRefused):
                raise TransportError(
                    self.name, f"opens no session: {error}", hint="see MaxSessions of its SSH server"
                ) from error
            if isinstance(error, MuxError):
                raise self.lost() from error
            if isinstance(error, TimeoutError):
                self.close()
                raise DeviceTimeout(self.name, problem) from error
            raise
        finally:
            for end in theirs:
                os.close(end)
        return OpensshCommand(
            control, self, ours, stdin=stdin, limits=limits, on_sent=on_sent, signals_before=signals
        )

    @property
    def name(self) -> str:
        """The device's name, for messages."""
        return self._device.name

    @property
    def signals(self) -> int:
        """How many commands ended by a signal so far."""
        return self._master.signals

    @property
    def alive(self) -> bool:
        """Whether the master answers, which it does as long as it has a connection."""
        try:
            with Control(self._place.socket, timeout_s=self._timeout_s) as control:
                control.ask(timeout_s=self._timeout_s)
        except (MuxError, TimeoutError):
            return False
        return True

    def lost(self) -> LinkLost | DeviceTimeout:
        """Return the error for a connection that is gone, once ssh has said why."""
        self._master.wait(_GONE_S)
        self.close()
        if self._found is not None:
            return DeviceTimeout(self.name, self._found, hint="run the same command again")
        return of_end(_said(self._device, self._master))

    def close(self) -> None:
        """End the connection and its processes; also frees a thread that waits in it."""
        self._closing.set()
        with self._closed:
            self._master.end()
            self._place.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _guard(self) -> None:
        # ssh itself watches the link (ServerAliveInterval). This watches ssh.
        patience_s = self._watch.patience_s
        try:
            with Control(self._place.socket, timeout_s=patience_s) as control:
                while not self._closing.wait(self._watch.every_s):
                    control.ask(timeout_s=patience_s)
        except MuxError:
            return  # it ended; whoever waits for a command is told by the end of its streams
        except TimeoutError:
            if not self._closing.is_set():
                self._found = f"the ssh program gave no sign of life for {patience_s:.3g} s"
                self._master.kill()


def _write_config(device: Device, place: Place, *, timeout_s: float, watch: Watch) -> None:
    pinned = device.jump_host_key is not None
    if pinned:
        # By the names that ssh looks up; where it finds another way than edgeq does, no key fits.
        hops = [hop for hop in route_of(device).hops[:-1] if isinstance(hop.pinned, HostKey)]
        lines = "".join(f"{host_name(hop.host, hop.port)} {hop.pinned}\n" for hop in hops)
        place.jump_hosts.write_text(lines, encoding="ascii")
    text = config_text(
        device, timeout_s=timeout_s, alive=words.alive(watch), jumps_pinned=place if pinned else None
    )
    place.config.write_text(text, encoding="utf-8")


def _wait(master: Master, device: Device, place: Place, *, timeout_s: float) -> None:
    try:
        ready = master.wait_for(place.socket, silence_s=timeout_s, total_s=_STEPS * timeout_s)
    except TimeoutError as error:
        raise _silent(device, master, str(error)) from error
    if not ready:
        master.wait(_GONE_S)
        raise of_login(_said(device, master))


def _silent(device: Device, master: Master, how: str) -> TransportError:
    where = f"{device.host}:{device.port}"
    lines = master.lines()
    if not any("Connection established" in line for line in lines):
        return Unreachable(
            device.name,
            f"nothing answers at {where} ({how})",
            hint=f"is it switched on, and does `ssh -p {device.port} {device.host}` reach it?",
        )
    if any("Authenticating to" in line for line in lines) and any("authenti" in line for line in lines[-3:]):
        return DeviceTimeout(device.name, f"no answer to the login ({how})")
    return DeviceTimeout(
        device.name,
        f"{where} accepts connections and then says nothing ({how})",
        hint="restart its SSH server, or look at its load",
    )


def _said(device: Device, master: Master) -> Said:
    return Said(device=device, alias=words.alias(device), lines=master.lines())
