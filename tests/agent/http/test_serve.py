"""`edgeq-agent serve` as a process: slow clients, a clean stop, its socket, what it does not start with."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.agent.served import Served, parsed, refused, request_of, rest, running
from tests.eventually import until

pytestmark = pytest.mark.convert


def test_a_connection_stays_open_for_the_next_request(server: Served, tiny_data: Any, name: str) -> None:
    body = json.dumps(request_of(tiny_data[0], name)).encode()
    head = b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += b"Content-Length: %d\r\n\r\n" % len(body)
    with closing(server.connect()) as link:
        for _ in range(3):
            link.sendall(head + body)
            answer = b""
            while b'"outputs"' not in answer or not answer.endswith(b"\n"):
                answer += link.recv(65536)
            assert parsed(answer)[0] == 200


def _drip(link: socket.socket, until_s: float) -> None:
    """Send a byte every 0.1 s: it never ends the headers."""
    while time.monotonic() < until_s:
        link.sendall(b"a")
        time.sleep(0.1)


def test_slow_clients_are_disconnected_and_too_many_are_refused(
    serving: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeq_agent import Runtime
    from edgeq_agent.http.limits import Limits
    from edgeq_agent.http.open_inference import Service
    from edgeq_agent.http.server import Server as HttpServer

    limits = Limits(header_s=1.0, body_s=2.0, idle_s=1.0, connections=3, requests=1)
    with Runtime("tiny", str(serving.home), telemetry=False) as rt:
        http = HttpServer(("127.0.0.1", 0), Service({"tiny": rt}, {}), limits)
        thread = threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        served = Served(None, {"address": http.address})  # type: ignore[arg-type]
        try:
            with closing(served.connect()) as dripping:
                dripping.sendall(b"GET /v2 HTTP/1.1\r\n")
                began = time.monotonic()
                with pytest.raises(ConnectionError):
                    _drip(dripping, until_s=began + 20)
            with closing(served.connect()) as half:
                half.sendall(
                    b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: localhost\r\n"
                    b"Content-Type: application/json\r\nContent-Length: 9\r\n\r\n12"
                )
                # While it is waited for, its request is the only one that may be.
                time.sleep(0.2)
                status, headers, _ = served.ask("GET", "/v2")
                assert (status, headers["retry-after"]) == (503, "1")
                assert rest(half) == b""
            with closing(served.connect()) as idle:
                assert rest(idle) == b""
            held = [served.connect() for _ in range(3)]
            time.sleep(0.2)
            assert served.raw(b"") == b""  # the fourth is closed at once
            for each in held:
                each.close()
            live = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            # Until the server has noticed that the three are gone, a connection ends without an answer.
            until(lambda: served.raw(live).startswith(b"HTTP/1.1 200 "))
        finally:
            assert http.stop(5)
            thread.join(5)


def test_sigterm_lets_requests_finish(serving: Any, tiny_data: Any, name: str) -> None:
    with running(serving, "--port", "0") as server:
        known = json.loads(server.ask("GET", "/v2/models/tiny")[2])["inputs"][0]["name"]
        body = json.dumps(request_of(tiny_data[0], known)).encode()
        for _ in range(5):
            assert server.ask("POST", "/v2/models/tiny/infer", body)[0] == 200
        head = "POST /v2/models/tiny/infer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        with closing(server.connect()) as link, closing(server.connect()) as idle:
            link.sendall(head.encode() + body[:10])  # under way
            time.sleep(0.3)
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            with pytest.raises(OSError, match="refused"):  # no new ones
                server.connect()
            link.sendall(body[10:])
            status, headers, answer = parsed(rest(link))
            assert (status, headers["connection"]) == (200, "close"), answer
            assert rest(idle) == b""
        assert server.process.wait(20) == 0
        assert server.process.stderr is not None
        assert b"Traceback" not in server.process.stderr.read()
    (event,) = serving.call("telemetry").of("window")
    assert event["window"]["inferences"] == 6


@pytest.mark.slow
def test_the_socket_of_a_dead_server_is_replaced_and_of_a_running_one_is_not(serving: Any) -> None:
    path = serving.home / "serve.sock"
    with running(serving) as first:
        assert refused(serving)[0] == 2
        assert "another server listens there" in refused(serving)[1]
        first.process.kill()
        first.process.wait(10)
        assert path.exists()
        with running(serving) as second:
            assert second.ask("GET", "/v2/health/ready")[0] == 200


@pytest.mark.first_is_quick
@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (["--port", "0", "--host", "0.0.0.0"], 2, "EQ548"),  # noqa: S104 - what must be refused
        (["--port", "0", "--host", "::"], 2, "EQ548"),
        (["--host", "192.0.2.1"], 2, "EQ548"),
        (["--port", "70000"], 2, "EQ512"),
        (["--unix", "/nonexistent/folder/socket"], 2, "EQ548"),
        (["--unix", "/tmp/" + "a" * 120], 2, "at most 107 bytes"),
        (["--unix", "/dev/null"], 2, "was not removed"),
        (["--port", "1", "--unix", "x"], 2, "not allowed"),
        (["--nonsense"], 2, "usage"),
        (["--model", "nobody"], 1, "EQ510"),
        (["--model", "../x"], 2, "EQ512"),
        (["--threads", "0"], 2, "EQ512"),
        (["--threads", "1000000"], 2, "EQ512"),
        (["--deadline", "nan"], 2, "EQ512"),
        (["--deadline", "0"], 2, "EQ512"),
        (["--session-idle", "inf"], 2, "EQ512"),
        (["--sessions", "-1"], 2, "EQ512"),
        (["--max-body", "0"], 2, "EQ512"),
        (["--token-file", "/dev/zero"], 2, "not a file"),
        (["--token-file", "/nonexistent"], 2, "No such file"),
    ],
)
def test_wrong_options_are_refused(serving: Any, options: list[str], status: int, words: str) -> None:
    got, error = refused(serving, *options)
    assert (got, words in error) == (status, True), error
    assert not (serving.home / "serve.sock").exists()


@pytest.mark.slow
def test_a_token_file_that_is_none_or_that_others_can_read_is_refused(serving: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)  # refused without waiting for a writer
    (tmp_path / "open").write_text("correct-horse-battery-staple")
    (tmp_path / "open").chmod(0o640)
    for name in ("pipe", "open"):
        status, error = refused(serving, "--token-file", str(tmp_path / name))
        assert (status, "other users can read it, or it is not a file" in error) == (2, True), error


def test_a_port_in_use_is_refused(serving: Any) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        status, error = refused(serving, "--port", str(taken.getsockname()[1]))
    assert (status, "EQ548" in error, "in use" in error) == (2, True, True)


def test_a_device_without_models_is_an_error(device: Any) -> None:
    status, error = refused(device)
    assert (status, "EQ510" in error, "deploy" in error) == (1, True, True)


@pytest.mark.slow
def test_a_model_that_does_not_load_is_not_ready_but_the_others_serve(
    serving: Any, kit: Any, tiny_models: Path, tiny_data: Any
) -> None:
    reference = kit.reference_of(tiny_data, classes=3, channels=2)
    other = kit.bundle_of(tiny_models / "float.tflite", tiny_data[:5], reference, name="other")
    other.send(serving)
    assert serving.call("activate", **other.request()).result["changed"]
    blob = serving.home / "releases" / other.release / "model.tflite"
    target = blob.resolve()
    target.write_bytes(b"TFL3" * 10)
    with running(serving, "--port", "0") as server:
        assert server.startup["models"] == ["tiny"]
        assert "EQ544" in server.startup["missing"]["other"]
        assert server.ask("GET", "/v2/health/live")[0] == 200
        assert server.ask("GET", "/v2/health/ready")[0] == 400
        assert server.ask("GET", "/v2/models/tiny/ready")[0] == 200
        assert server.ask("GET", "/v2/models/other/ready")[0] == 400


@pytest.mark.slow
def test_it_replaces_itself_by_the_runtimes_interpreter(serving: Any, tmp_path: Path) -> None:
    # The device's system Python: no numpy, no runtime. -S leaves the site-packages out.
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec {shutil.which("python3") or "python3"} -S -E "$@"\n')
    bare.chmod(0o755)
    interpreter = json.loads((serving.home / "runtime" / _runtime(serving) / "runtime.json").read_text())
    interpreter["interpreter"] = serving.command[0]
    (serving.home / "runtime" / _runtime(serving) / "runtime.json").write_text(json.dumps(interpreter))
    code = f"import sys; sys.path.insert(0, {serving.environment['PYTHONPATH']!r});"
    code += "from edgeq_agent.__main__ import main; main()"
    command = (str(bare), "-c", code)
    from dataclasses import replace

    with running(replace(serving, command=command), "--port", "0") as server:
        assert server.ask("GET", "/v2/health/ready")[0] == 200
        assert os.readlink(f"/proc/{server.process.pid}/exe") == os.path.realpath(serving.command[0])


def _runtime(device: Any) -> str:
    digest: str
    (digest,) = os.listdir(device.home / "runtime")
    return digest
