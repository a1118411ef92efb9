"""The contract of a transport: both adapters, against the loopback device and against OpenSSH's sshd."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgeq.errors import (
    AuthenticationFailed,
    DeviceTimeout,
    HostKeyMismatch,
    LinkLost,
    TransportError,
    Unreachable,
    UsageError,
)
from edgeq.fleet.enrol import fetch_host_key
from edgeq.fleet.ssh import transport as ssh
from edgeq.fleet.ssh.keepalive import STEP_S, USUAL
from edgeq.fleet.transport import Limits
from edgeq.testing.faulty_link import FaultyLink, faulty_link
from edgeq.testing.loopback import loopback_device
from edgeq.testing.server import Fault
from edgeq.values import Device
from tests.fleet.adapters import LIMITS, Adapter, endless, use
from tests.fleet.frozen import PHASES, noticed


@pytest.fixture(params=[pytest.param("paramiko"), pytest.param("openssh", marks=pytest.mark.sshd)])
def adapter(request: pytest.FixtureRequest) -> Adapter:
    return Adapter(name=request.param)


@pytest.fixture(autouse=True)
def nothing_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """No process, no thread, no file, no descriptor of a connection outlives it."""
    folder = Path(tempfile.mkdtemp(prefix="eq-", dir="/tmp"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    before = children()
    yield folder
    until_s = time.monotonic() + 10
    while left := [*_threads(), *(children() - before)]:
        assert time.monotonic() < until_s, left
        time.sleep(0.05)
    assert list(folder.iterdir()) == []
    folder.rmdir()


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("edgeq-")]


def children() -> set[str]:
    """Return the descendants of this process, without the devices, as `PID COMMAND`."""
    processes = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit():
                stat = (entry / "stat").read_text().rpartition(")")
                processes[int(entry.name)] = (int(stat[2].split()[1]), stat[0].partition("(")[2])
    ours: set[str] = set()
    for pid, (parent, command) in processes.items():
        if command not in ("ssh", "sh"):
            continue
        while parent in processes and parent != os.getpid():
            parent = 0 if processes[parent][1].startswith("sshd") else processes[parent][0]
        if parent == os.getpid() and "loopback" not in _argv(processes[pid][0]):
            ours.add(f"{pid} {command}")
    return ours


def _argv(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path("/proc", str(pid), "cmdline").read_text()
    return ""


class TestTransport:
    """What both adapters do."""

    def test_streams_and_the_exit_status_arrive(self, adapter: Adapter, server: Any) -> None:
        with adapter.connect(server.device()) as transport:
            lines, ended = use(
                transport, ["sh", "-c", "cat; echo bad >&2; exit 7"], [b"one\ntwo\n", b"three"]
            )
        assert lines == [b"one", b"two", b"three"]
        assert (ended.exit_status, ended.stderr, ended.sent_bytes) == (7, "bad", 13)

    @pytest.mark.first_is_quick
    @pytest.mark.parametrize("status", [0, 1, 126, 127, 254, 255])
    def test_every_exit_status_is_the_commands_own(self, adapter: Adapter, server: Any, status: int) -> None:
        with adapter.connect(server.device()) as transport:
            assert use(transport, ["sh", "-c", f"exit {status}"])[1].exit_status == status
            assert use(transport, ["echo", "on"])[0] == [b"on"], "255 does not mean that the connection ended"

    def test_a_command_that_a_signal_ended_has_no_good_status(self, adapter: Adapter, server: Any) -> None:
        with adapter.connect(server.device()) as transport:
            lines, ended = use(transport, ["sh", "-c", "echo begun; kill -9 $$"])
            assert lines == [b"begun"]
            assert ended.exit_status in (None, 128 + signal.SIGKILL)
            assert use(transport, ["echo", "on"])[0] == [b"on"], "the connection is as it was"

    def test_a_command_that_a_signal_ended_without_a_word_was_not_refused(
        self, adapter: Adapter, server: Any
    ) -> None:
        with adapter.connect(server.device()) as transport:
            # The whole group, so that the server's own child is in it, and no shell reports in its place.
            lines, ended = use(transport, ["sh", "-c", "kill -9 0"])
            assert (lines, ended.stderr) == ([], "")
            assert ended.exit_status in (None, 128 + signal.SIGKILL)

    def test_several_commands_share_one_login(self, adapter: Adapter, server: Any) -> None:
        with (
            faulty_link(server.host, server.port) as link,
            adapter.connect(server.device(port=link.port)) as transport,
        ):
            logged_in_bytes = link.forwarded_bytes
            for number in range(20):
                assert use(transport, ["echo", str(number)])[0] == [str(number).encode()]
            assert link.forwarded_bytes - logged_in_bytes < 20 * 1000, "a login takes more than that"

    def test_commands_at_once_do_not_meet(self, adapter: Adapter, server: Any) -> None:
        with adapter.connect(server.device()) as transport, ThreadPoolExecutor(4) as pool:
            sums = list(
                pool.map(lambda n: use(transport, ["wc", "-c"], [bytes(n * 100_000)])[0], range(1, 5))
            )
        assert sums == [[str(n * 100_000).encode()] for n in range(1, 5)]

    def test_input_streams_while_output_is_read(self, adapter: Adapter, server: Any) -> None:
        answers: list[bytes] = []
        more = threading.Semaphore(0)

        def questions() -> Iterator[bytes]:
            for number in range(5):
                yield f"{number}\n".encode()
                assert more.acquire(timeout=20)

        with adapter.connect(server.device()) as transport:
            script = 'while read -r n; do echo "got $n"; done'
            for line in transport.run(["sh", "-c", script], stdin=questions(), limits=LIMITS).lines():
                answers.append(line)
                more.release()
        assert answers == [f"got {number}".encode() for number in range(5)]

    @pytest.mark.first_is_quick
    def test_large_output_and_large_errors_do_not_block_each_other(
        self, adapter: Adapter, server: Any
    ) -> None:
        script = "head -c 3000000 /dev/zero | tr '\\0' e >&2; yes line | head -n 400000"
        with adapter.connect(server.device()) as transport:
            lines, ended = use(transport, ["sh", "-c", script])
        assert len(lines) == 400_000
        assert ended.exit_status == 0
        assert set(ended.stderr) == {"e"}
        assert len(ended.stderr) <= 8192, "only the last of it is kept"

    def test_large_input_arrives_whole_and_is_counted(self, adapter: Adapter, server: Any) -> None:
        sent: list[int] = []
        with adapter.connect(server.device()) as transport:
            running = transport.run(
                ["wc", "-c"], stdin=[bytes(3_000_000)] * 5, limits=LIMITS, on_sent=sent.append
            )
            assert list(running.lines()) == [b"15000000"]
            assert running.ended().sent_bytes == sum(sent) == 15_000_000

    def test_a_command_that_does_not_read_its_input_still_answers(
        self, adapter: Adapter, server: Any
    ) -> None:
        with adapter.connect(server.device()) as transport:
            lines, ended = use(transport, ["sh", "-c", "echo enough; exit 1"], endless())
            assert (lines, ended.exit_status) == ([b"enough"], 1)

    def test_an_input_that_fails_is_the_callers_own_error(self, adapter: Adapter, server: Any) -> None:
        def broken() -> Iterator[bytes]:
            yield b"some"
            raise PermissionError(13, "the file is gone")

        with adapter.connect(server.device()) as transport, pytest.raises(PermissionError):
            use(transport, ["cat"], broken())

    @pytest.mark.slow
    @settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        words=st.lists(
            st.text(st.characters(codec="utf-8", exclude_characters="\0\n")), min_size=1, max_size=4
        )
    )
    @example(words=["$(touch pwned)", "`id`", "a'b\"c", "\\", "~", "*", "--", "-o", "%h", "é\t ", ""])
    def test_no_word_is_read_by_a_shell(
        self, adapter: Adapter, loopback_server: Any, words: list[str]
    ) -> None:
        with adapter.connect(loopback_server.device()) as transport:
            lines, _ = use(transport, ["printf", "%s\\n", *words])
        assert [line.decode() for line in lines] == words

    def test_silence_is_a_timeout(self, adapter: Adapter, server: Any) -> None:
        limits = Limits(first_s=0.5, silence_s=0.5, total_s=30)
        with (
            adapter.connect(server.device()) as transport,
            pytest.raises(DeviceTimeout, match="pi: no output"),
        ):
            use(transport, ["sleep", "60"], limits=limits)

    def test_a_silence_after_the_first_word_has_its_own_limit(self, adapter: Adapter, server: Any) -> None:
        limits = Limits(first_s=30, silence_s=0.5, total_s=30)
        with (
            adapter.connect(server.device()) as transport,
            pytest.raises(DeviceTimeout, match=r"pi: no output for [01] s"),
        ):
            use(transport, ["sh", "-c", "echo here; sleep 60"], limits=limits)

    @pytest.mark.first_is_quick
    def test_endless_talk_is_a_timeout_too(self, adapter: Adapter, server: Any) -> None:
        limits = Limits(first_s=5, silence_s=5, total_s=1)
        with (
            adapter.connect(server.device()) as transport,
            pytest.raises(DeviceTimeout, match="not finished after"),
        ):
            use(transport, ["sh", "-c", "while :; do echo x; sleep 0.05; done"], limits=limits)

    def test_a_cut_link_differs_from_an_end(self, adapter: Adapter, server: Any) -> None:
        with (
            faulty_link(server.host, server.port) as link,
            adapter.connect(server.device(port=link.port)) as transport,
        ):
            link.cut_after(500_000)
            with pytest.raises(LinkLost, match="pi: the connection was lost"):
                use(transport, ["sha256sum"], endless())
            with pytest.raises(LinkLost):
                use(transport, ["true"])

    def test_a_flipped_byte_ends_the_connection(self, adapter: Adapter, server: Any) -> None:
        with (
            faulty_link(server.host, server.port) as link,
            adapter.connect(server.device(port=link.port)) as transport,
        ):
            link.flip_after(300_000)
            with pytest.raises(TransportError) as caught:
                use(transport, ["sha256sum"], iter([bytes(2_000_000)]))
            assert caught.value.transient

    def test_a_server_that_refuses_commands_says_so(self, adapter: Adapter, tmp_path: Path) -> None:
        with (
            loopback_device(tmp_path / "device", fault=Fault.NO_EXEC) as device,
            adapter.connect(of_loopback(device)) as transport,
            pytest.raises(TransportError, match="refuses to run a command") as caught,
        ):
            use(transport, ["true"])
        assert not caught.value.transient

    def test_a_command_may_end_before_the_server_accepts_it(self, adapter: Adapter, tmp_path: Path) -> None:
        with (
            loopback_device(tmp_path / "device", fault=Fault.LATE_ACCEPT) as device,
            adapter.connect(of_loopback(device)) as transport,
        ):
            assert list(transport.run(["echo", "in"], stdin=(), limits=LIMITS).lines()) == [b"in"]

    def test_a_changed_host_key_is_refused_before_the_login(
        self, adapter: Adapter, server: Any, tmp_path: Path
    ) -> None:
        with loopback_device(tmp_path / "other") as other:
            pinned = fetch_host_key(other.host, other.port, 10)
        device = dataclasses.replace(server.device(), host_key=str(pinned))
        with pytest.raises(HostKeyMismatch) as caught:
            adapter.connect(device)
        assert pinned.fingerprint in str(caught.value.expected)
        assert server.fingerprint in str(caught.value.got)
        assert f"rotate-key pi --fingerprint {server.fingerprint}" in str(caught.value.hint)
        assert not caught.value.transient

    def test_a_host_key_of_another_type_is_refused_too(self, adapter: Adapter, server: Any) -> None:
        import paramiko

        other = paramiko.RSAKey.generate(2048)
        device = dataclasses.replace(server.device(), host_key=f"ssh-rsa {other.get_base64()}")
        with pytest.raises(HostKeyMismatch, match="the host key changed"):
            adapter.connect(device)

    def test_a_refused_key_is_final(self, adapter: Adapter, server: Any, tmp_path: Path) -> None:
        import paramiko

        wrong = tmp_path / "wrong"
        paramiko.RSAKey.generate(2048).write_private_key_file(str(wrong))
        with pytest.raises(AuthenticationFailed, match="refuses") as caught:
            adapter.connect(server.device(identity=wrong))
        assert str(wrong) in caught.value.message
        assert not caught.value.transient

    def test_an_identity_that_is_not_there_is_a_usage_error(
        self, adapter: Adapter, loopback_server: Any, tmp_path: Path
    ) -> None:
        with pytest.raises(UsageError, match="identity file not found") as caught:
            adapter.connect(loopback_server.device(identity=tmp_path / "nothing"))
        assert "devices.toml" in caught.value.hint

    def test_nothing_that_listens_is_unreachable(self, adapter: Adapter, loopback_server: Any) -> None:
        with pytest.raises(Unreachable, match=r"nothing answers at 127\.0\.0\.1:") as caught:
            adapter.connect(loopback_server.device(port=free_port()))
        assert caught.value.transient

    def test_a_name_that_does_not_resolve_is_unreachable(
        self, adapter: Adapter, loopback_server: Any
    ) -> None:
        device = dataclasses.replace(loopback_server.device(), host="no-such-host.invalid")
        with pytest.raises(Unreachable, match=r"no-such-host\.invalid"):
            adapter.connect(device)

    def test_a_server_that_says_nothing_is_a_timeout(self, adapter: Adapter, tmp_path: Path) -> None:
        with loopback_device(tmp_path / "quick") as device:
            known = of_loopback(device)
        with loopback_device(tmp_path / "device", fault=Fault.HANG) as silent:
            started_s = time.monotonic()
            with pytest.raises(DeviceTimeout, match="sends nothing"):
                adapter.connect(dataclasses.replace(known, port=silent.port), timeout_s=1)
            assert 0.9 < time.monotonic() - started_s < 5

    @pytest.mark.first_is_quick
    def test_a_port_with_another_protocol_is_not_an_ssh_server(
        self, adapter: Adapter, loopback_server: Any
    ) -> None:
        def answer(listener: socket.socket) -> None:
            sock, _ = listener.accept()
            with sock, contextlib.suppress(OSError):  # it may hang up in the middle of this
                sock.sendall(b"HTTP/1.0 400 Bad Request\r\n" * 200)
                sock.settimeout(5)
                while sock.recv(4096):
                    pass

        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=answer, args=(listener,))
            thread.start()
            with pytest.raises(TransportError):
                adapter.connect(loopback_server.device(port=listener.getsockname()[1]), timeout_s=3)
            thread.join(10)

    def test_closing_frees_a_thread_that_waits(self, adapter: Adapter, server: Any) -> None:
        transport = adapter.connect(server.device())
        caught: list[BaseException] = []

        def wait() -> None:
            try:
                use(transport, ["sleep", "600"])
            except TransportError as error:
                caught.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.5)
        transport.close()
        thread.join(10)
        assert not thread.is_alive()
        assert [type(error) for error in caught] == [LinkLost]

    def test_closing_twice_is_harmless_and_using_it_then_an_error(
        self, adapter: Adapter, loopback_server: Any
    ) -> None:
        transport = adapter.connect(loopback_server.device())
        transport.close()
        transport.close()
        with pytest.raises(LinkLost):
            use(transport, ["true"])

    def test_a_command_that_is_dropped_leaves_the_connection_usable(
        self, adapter: Adapter, server: Any
    ) -> None:
        with adapter.connect(server.device()) as transport:
            lines = transport.run(["sh", "-c", "while :; do echo x; done"], stdin=(), limits=LIMITS).lines()
            assert next(lines) == b"x"
            lines.close()  # type: ignore[attr-defined]
            assert use(transport, ["echo", "on"])[0] == [b"on"]

    def test_no_descriptor_is_left(self, adapter: Adapter, loopback_server: Any) -> None:
        device = loopback_server.device()

        def once() -> None:
            with adapter.connect(device) as transport:
                use(transport, ["cat"], [b"x"])
                running = transport.run(["cat"], stdin=[b"x"], limits=LIMITS)
                for _ in running.lines():
                    pass

        once()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            once()
        until_s = time.monotonic() + 5
        while len(os.listdir("/proc/self/fd")) > before:
            assert time.monotonic() < until_s
            time.sleep(0.05)

    @pytest.mark.slow
    def test_the_watch_lets_a_long_silent_command_be(self, adapter: Adapter, server: Any) -> None:
        with faulty_link(server.host, server.port) as link:
            link.delay(0.05)
            with adapter.connect(server.device(port=link.port), watch=adapter.quick) as transport:
                assert use(transport, ["sh", "-c", "sleep 4; echo done"])[0] == [b"done"]

    @pytest.mark.slow
    def test_a_slow_link_is_not_a_frozen_one(self, adapter: Adapter, server: Any) -> None:
        with (
            faulty_link(server.host, server.port) as link,
            adapter.connect(server.device(port=link.port), watch=adapter.quick) as transport,
        ):
            link.drip(600_000)
            assert use(transport, ["wc", "-c"], [bytes(2_400_000)])[0] == [b"2400000"]

    @pytest.mark.parametrize(
        "phase",
        [
            "waiting",
            *(
                pytest.param(phase, marks=pytest.mark.slow)
                for phase in (
                    "reaching",
                    "banner",
                    "key exchange",
                    "login",
                    "opening a channel",
                    "sending",
                    "waiting, what we send still arrives",
                    "waiting, what it says still arrives",
                )
            ),
        ],
    )
    def test_a_frozen_link_is_noticed_in_every_phase(self, adapter: Adapter, server: Any, phase: str) -> None:
        assert noticed(phase, adapter, server, 1.0, adapter.quick) < 8

    @pytest.mark.alone
    @pytest.mark.slow
    def test_with_the_usual_settings_that_is_ten_seconds(
        self, adapter: Adapter, loopback_server: Any
    ) -> None:
        assert STEP_S < 10
        assert USUAL.patience_s + 1 < 10
        with ThreadPoolExecutor(len(PHASES)) as pool:
            futures = {
                phase: pool.submit(noticed, phase, adapter, loopback_server, STEP_S, USUAL)
                for phase in PHASES
            }
            took = {phase: future.result() for phase, future in futures.items()}
        # Three seconds for the steps before the freeze, nine at once on a busy machine.
        assert max(took.values()) < 10 + 3, took


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def of_loopback(device: Any) -> Device:
    return Device(
        name="pi",
        host=device.host,
        port=device.port,
        user=device.user,
        identity=device.identity,
        host_key=str(fetch_host_key(device.host, device.port, 9)),
    )


def test_the_link_leaves_no_thread(loopback_server: Any) -> None:
    link = FaultyLink(loopback_server.host, loopback_server.port)
    device = dataclasses.replace(loopback_server.device(), port=link.port)
    with ssh.connect(device, timeout_s=9):
        link.freeze_after(0)
    link.close()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("edgeq-link")] == []
