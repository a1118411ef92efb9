"""`edgeq-agent serve`: the Open Inference Protocol v2, spoken with clients that are not ours."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq_agent import releases
from edgeq_agent.home import Home
from edgeq_agent.sdk import split as sdk_split
from edgeq_agent.sdk.split import Arm, Split

pytestmark = pytest.mark.convert

CURL = shutil.which("curl")
needs_curl = pytest.mark.skipif(CURL is None, reason="curl is not installed (apt-get install curl)")


class Served:
    """A running server."""

    def __init__(self, process: subprocess.Popen[bytes], told: dict[str, Any]) -> None:
        self.process = process
        self.told = told
        self.address = str(told["address"])

    @property
    def netloc(self) -> str:
        return self.address.partition("//")[2]

    @property
    def socket_path(self) -> str:
        return self.address.partition("unix:")[2]

    def connect(self) -> socket.socket:
        if self.socket_path:
            found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            found.settimeout(20)
            found.connect(self.socket_path)
            return found
        host, _, port = self.netloc.rpartition(":")
        return socket.create_connection((host.strip("[]"), int(port)), timeout=20)

    def raw(self, data: bytes) -> bytes:
        """Send bytes as they are, and return what comes until the server ends the connection."""
        with closing(self.connect()) as link:
            link.sendall(data)
            return _rest(link)

    def ask(
        self, method: str, path: str, body: bytes = b"", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Send one request; return (status, headers in lower case, body)."""
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        lines += [f"Content-Length: {len(body)}"] if body or method == "POST" else []
        return _parsed(self.raw("\r\n".join(lines).encode() + b"\r\n\r\n" + body))

    def post(self, model: str, request: Any, **headers: str) -> tuple[int, dict[str, Any]]:
        body = request if isinstance(request, bytes) else json.dumps(request).encode()
        status, _, answer = self.ask("POST", f"/v2/models/{model}/infer", body, **headers)
        return status, json.loads(answer)


def _rest(link: socket.socket) -> bytes:
    found = b""
    while chunk := link.recv(65536):
        found += chunk
    return found


def _parsed(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    return int(lines[0].split()[1]), headers, body


@contextmanager
def _serving(device: Any, *options: str) -> Iterator[Served]:
    process = subprocess.Popen(
        [*device.command, "serve", "--home", str(device.home), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=device.environment,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise AssertionError(process.communicate(timeout=10)[1].decode())
        yield Served(process, json.loads(line))
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=30)


def _refused(device: Any, *options: str) -> tuple[int, str]:
    done = subprocess.run(
        [*device.command, "serve", "--home", str(device.home), *options],
        capture_output=True, text=True, env=device.environment, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def server(prepared_both: Path, tmp_path_factory: pytest.TempPathFactory, kit: Any) -> Iterator[Served]:
    """Return a server of the float release on a port, for tests that change nothing."""
    home = tmp_path_factory.mktemp("served") / "home"
    shutil.copytree(prepared_both, home, symlinks=True)
    with _serving(kit.Device(home=home), "--port", "0", "--max-body", "100000") as found:
        yield found


def _request(sample: Any, name: str = "", **more: Any) -> dict[str, Any]:
    entry = {"name": name, "shape": list(sample.shape), "datatype": "FP32", "data": sample.ravel().tolist()}
    return {"inputs": [entry], **more}


@pytest.fixture(scope="module")
def name(server: Served) -> str:
    """Return the name of the model's input."""
    return str(json.loads(server.ask("GET", "/v2/models/tiny")[2])["inputs"][0]["name"])


class TestWithTritonsClient:
    """NVIDIA's client, which speaks the protocol to servers of all makers."""

    @pytest.fixture
    def client(self, server: Served) -> Iterator[Any]:
        http = pytest.importorskip("tritonclient.http", reason="needs tritonclient[http]")
        with closing(http.InferenceServerClient(server.netloc)) as client:
            yield client

    def test_health_and_metadata(self, client: Any, float_bundle: Any) -> None:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("tiny")
        assert client.is_model_ready("tiny", float_bundle.release)
        assert not client.is_model_ready("tiny", "1")
        assert not client.is_model_ready("nobody")
        assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
        found = client.get_model_metadata("tiny")
        assert found["versions"] == [float_bundle.release]
        assert [entry["shape"] for entry in found["inputs"] + found["outputs"]] == [[1, 6, 6, 2], [1, 3]]

    @pytest.mark.parametrize("binary_in", [True, False])
    @pytest.mark.parametrize("binary_out", [True, False])
    def test_the_models_answers(
        self, client: Any, tiny_models: Path, tiny_data: Any, kit: Any, binary_in: bool, binary_out: bool,
        float_bundle: Any,
    ) -> None:  # fmt: skip
        import tritonclient.http as http

        known = client.get_model_metadata("tiny")
        wanted = kit.run_here(tiny_models / "float.tflite", tiny_data[:10])[1]
        for row in range(10):
            entry = http.InferInput(known["inputs"][0]["name"], [1, 6, 6, 2], "FP32")
            entry.set_data_from_numpy(tiny_data[row : row + 1], binary_data=binary_in)
            exit_ = http.InferRequestedOutput(known["outputs"][0]["name"], binary_data=binary_out)
            found = client.infer("tiny", [entry], outputs=[exit_], request_id=f"r{row}")
            np.testing.assert_allclose(found.as_numpy(known["outputs"][0]["name"])[0], wanted[row], rtol=1e-6)
            response = found.get_response()
            assert (response["id"], response["model_version"]) == (f"r{row}", float_bundle.release)

    def test_errors(self, client: Any, tiny_data: Any) -> None:
        import tritonclient.http as http
        from tritonclient.utils import InferenceServerException

        entry = http.InferInput("x", [1, 6, 6, 2], "FP32")
        entry.set_data_from_numpy(tiny_data[:1])
        with pytest.raises(InferenceServerException, match="no model 'nobody'"):
            client.infer("nobody", [entry])
        with pytest.raises(InferenceServerException, match="EQ540"):
            client.infer("tiny", [entry])
        with pytest.raises(InferenceServerException, match="Content-Encoding"):
            client.infer("tiny", [entry], request_compression_algorithm="gzip")

    def test_many_clients_at_once(self, server: Served, tiny_data: Any, name: str) -> None:
        import tritonclient.http as http

        failed: list[object] = []

        def work(seed: int) -> None:
            with closing(http.InferenceServerClient(server.netloc)) as client:
                for row in range(seed, seed + 30):
                    entry = http.InferInput(name, [1, 6, 6, 2], "FP32")
                    entry.set_data_from_numpy(tiny_data[row : row + 1])
                    try:
                        client.infer("tiny", [entry])
                    except Exception as error:  # noqa: BLE001 - any failure is what this looks for
                        failed.append(error)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert failed == []


@needs_curl
def test_curl_over_the_unix_socket(serving: Any, tiny_data: Any, tiny_models: Path, kit: Any) -> None:
    with _serving(serving) as server:
        path = serving.home / "serve.sock"
        assert server.socket_path == str(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

        def curl(*words: str) -> Any:
            command = [str(CURL), "-sS", "--fail-with-body", "--unix-socket", str(path), *words]
            return json.loads(subprocess.run(command, capture_output=True, check=True, timeout=30).stdout)

        assert curl("http://localhost/v2/health/ready") == {"ready": True}
        entry = curl("http://localhost/v2/models/tiny")["inputs"][0]
        assert entry["datatype"] == "FP32"  # int8 inside; real values are quantized for the caller
        (serving.home / "request.json").write_text(json.dumps(_request(tiny_data[:1], entry["name"])))
        found = curl("http://localhost/v2/models/tiny/infer", "-d", f"@{serving.home}/request.json")
        raw = kit.run_here(tiny_models / "int8.tflite", tiny_data[:1])[1]
        np.testing.assert_allclose(found["outputs"][0]["data"], (raw[0].astype(float) + 128) / 256)
        # Over 1 MB curl asks first ("Expect: 100-continue"), and has its answer before it sends.
        big = _request(np.zeros((300, 6, 6, 100), np.float32), entry["name"])
        (serving.home / "request.json").write_text(json.dumps(big))
        words = [str(CURL), "-sS", "-w", "%{http_code}", "-o", "/dev/null", "--unix-socket", str(path)]
        words += ["http://localhost/v2/models/tiny/infer", "-d", f"@{serving.home}/request.json"]
        assert subprocess.run(words, capture_output=True, check=True, timeout=60).stdout == b"400"
    assert not path.exists()


def test_integers_raw_outputs_and_versions(
    both: Any, int8_bundle: Any, float_bundle: Any, tiny_models: Path, tiny_data: Any, kit: Any
) -> None:
    arms = (Arm("a", "current", 1.0), Arm("b", "previous", 1.0))
    sdk_split.write(Home(str(both.home)), "tiny", Split(arms, "s"))
    integers, raw = kit.run_here(tiny_models / "int8.tflite", tiny_data[:1])
    with _serving(both, "--port", "0") as server:
        at = f"/v2/models/tiny/versions/{int8_bundle.release}"
        known = json.loads(server.ask("GET", at)[2])
        assert sorted(known["versions"]) == sorted([int8_bundle.release, float_bundle.release])
        entry = {"name": known["inputs"][0]["name"], "shape": [6, 6, 2], "datatype": "INT8"}
        head = json.dumps(
            {
                "inputs": [{**entry, "parameters": {"binary_data_size": 72}}],
                "parameters": {"raw": True, "binary_data_output": True},
            }
        ).encode()
        status, headers, body = server.ask(
            "POST", at + "/infer", head + integers.tobytes(), inference_header_content_length=str(len(head))
        )
        assert status == 200, body
        length = int(headers["inference-header-content-length"])
        answer = json.loads(body[:length])
        assert answer["outputs"] == [
            {"name": known["outputs"][0]["name"], "datatype": "INT8", "shape": [3],
             "parameters": {"binary_data_size": 3}}
        ]  # fmt: skip
        assert answer["model_version"] == int8_bundle.release
        np.testing.assert_array_equal(np.frombuffer(body[length:], np.int8), raw[0])
        # The split's key.
        found = set()
        for key in range(20):
            request = _request(tiny_data[0], entry["name"], parameters={"key": f"k{key}"})
            status, said = server.post("tiny", request)
            assert status == 200, said
            wanted = sdk_split.choose([("a", 1.0), ("b", 1.0)], "s", f"k{key}")
            assert said["parameters"] == {"arm": "ab"[wanted]}
            assert said["model_version"] == [float_bundle.release, int8_bundle.release][wanted]
            found.add(said["parameters"]["arm"])
        assert found == {"a", "b"}
        for path in (f"/v2/models/tiny/versions/{'0' * 64}", "/v2/models/tiny/versions/1"):
            assert server.ask("GET", path)[0] == 404
            body = json.dumps(_request(tiny_data[0], entry["name"])).encode()
            assert server.ask("POST", path + "/infer", body)[0] == 404


def test_a_swap_while_it_serves(both: Any, int8_bundle: Any, tiny_data: Any, name: str) -> None:
    with _serving(both, "--port", "0") as server:
        before = server.post("tiny", _request(tiny_data[0], name))[1]["model_version"]
        assert before != int8_bundle.release
        releases.point(Home(str(both.home)), "tiny", int8_bundle.release)
        end = time.monotonic() + 20
        while True:
            request = _request(
                tiny_data[0], json.loads(server.ask("GET", "/v2/models/tiny")[2])["inputs"][0]["name"]
            )
            status, answer = server.post("tiny", request)
            assert status == 200, answer
            if answer["model_version"] == int8_bundle.release:
                break
            assert time.monotonic() < end


class TestRefusals:
    """Each with its status, one line of why, and a server that goes on."""

    @pytest.fixture(autouse=True)
    def _goes_on(self, server: Served) -> Iterator[None]:
        yield
        assert server.ask("GET", "/v2/health/ready")[0] == 200

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"shape": [6, 6, 3]}, "expected 108 values"),
            ({"shape": [6, 6, 2], "datatype": "BYTES"}, "datatype"),
            ({"datatype": 3}, "datatype"),
            ({"shape": [-1]}, "shape"),
            ({"shape": "6"}, "shape"),
            ({"shape": [1 << 40, 1 << 40]}, "elements"),
            ({"data": None}, "data"),
            ({"data": [[1, 2], [3]]}, "data"),
            ({"data": ["a"] * 72}, "data"),
            ({"data": [{}] * 72}, "data"),
            ({"datatype": "INT8", "data": [1.5] * 72}, "INT8"),
            ({"datatype": "INT8", "data": [300] * 72}, "INT8"),
            ({"datatype": "FP16"}, "FP16"),
            ({"name": "other"}, "EQ540"),
            ({"name": 1}, "name"),
            ({"parameters": 1}, "parameters"),
            ({"parameters": {"binary_data_size": 288}}, "Inference-Header-Content-Length"),
            ({"shape": [72]}, "EQ540"),
        ],
    )
    def test_an_input(self, server: Served, tiny_data: Any, name: str, changes: Any, words: str) -> None:
        request = _request(tiny_data[0], name)
        request["inputs"][0].update(changes)
        status, answer = server.post("tiny", request)
        assert status == 400
        assert words in answer["error"]
        assert "\n" not in answer["error"]

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"inputs": []}, "inputs"),
            ({"inputs": {}}, "inputs"),
            ({"inputs": [3]}, "inputs"),
            ({"parameters": {"classification": 3}}, "classification"),
            ({"parameters": {"raw": 1}}, "raw"),
            ({"parameters": {"key": []}}, "key"),
            ({"parameters": {"deadline_s": -1}}, "EQ512"),
            ({"outputs": 1}, "outputs"),
            ({"outputs": [{"name": "nobody"}]}, "nobody"),
            ({"outputs": ["a"]}, "output"),
        ],
    )
    def test_a_request(self, server: Served, tiny_data: Any, name: str, changes: Any, words: str) -> None:
        status, answer = server.post("tiny", _request(tiny_data[0], name, **changes))
        assert (status, words in answer["error"]) == (400, True), answer

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 5000, b'{"inputs": NaN}'])
    def test_a_body_that_is_no_request(self, server: Served, body: bytes) -> None:
        assert server.post("tiny", body)[0] == 400

    def test_nan_has_no_place_in_json_but_is_refused_by_name(self, server: Served, name: str) -> None:
        request = _request(np.full((6, 6, 2), np.nan, np.float32), name)
        status, answer = server.post("tiny", request)
        assert (status, "EQ541" in answer["error"]) == (400, True)

    @pytest.mark.parametrize("length", ["x", "-1", "1000000", "\u0663", "9" * 30])
    def test_a_header_length_that_is_none(
        self, server: Served, tiny_data: Any, name: str, length: str
    ) -> None:
        body = json.dumps(_request(tiny_data[0], name)).encode()
        status, answer = server.post("tiny", body, inference_header_content_length=length)
        assert (status, "Inference-Header" in answer["error"]) == (400, True)

    @pytest.mark.parametrize(("size", "tail"), [(288, 287), (288, 289), (4, 288), (True, 288), ("288", 288)])
    def test_binary_data_of_another_size(self, server: Served, name: str, size: Any, tail: int) -> None:
        entry = {
            "name": name,
            "shape": [6, 6, 2],
            "datatype": "FP32",
            "parameters": {"binary_data_size": size},
        }
        head = json.dumps({"inputs": [entry]}).encode()
        length = str(len(head))
        status, _ = server.post("tiny", head + bytes(tail), inference_header_content_length=length)
        assert status == 400

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("GET", "/", 404),
            ("GET", "/v2/models/nobody", 404),
            ("GET", "/v2/models/../../etc/passwd", 404),
            ("GET", "/v2/models/%2e%2e%2fetc", 404),
            ("GET", "/v2/models/tiny/infer", 405),
            ("POST", "/v2/models/tiny", 405),
            ("DELETE", "/v2", 405),
            ("PATCH", "/v2/health/live", 405),
            ("BREW", "/v2", 405),
            ("HEAD", "/v2/models/nobody/ready", 405),
        ],
    )
    def test_a_path_or_method(self, server: Served, method: str, path: str, status: int) -> None:
        found, headers, body = server.ask(method, path)
        assert found == status
        assert headers["content-type"] == "application/json"
        assert method == "HEAD" or set(json.loads(body)) == {"error"}

    def test_a_body_that_is_too_large_is_refused_before_it_is_sent(self, server: Served) -> None:
        head = b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100001\r\n"
        for more in (b"\r\n", b"Expect: 100-continue\r\n\r\n"):
            status, headers, body = _parsed(server.raw(head + more))
            assert (status, headers["connection"]) == (413, "close")
            assert "at most 100000 bytes" in json.loads(body)["error"]

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ("", 411),
            ("Content-Length: x\r\n", 400),
            ("Content-Length: -5\r\n", 400),
            ("Content-Length: 1\r\nContent-Length: 2\r\n", 400),
            ("Transfer-Encoding: chunked\r\n", 501),
            ("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", 501),
            ("Host: evil.example\r\nContent-Length: 0\r\n", 403),
        ],
    )
    def test_headers(self, server: Served, headers: str, status: int) -> None:
        host = "" if "Host" in headers else "Host: 127.0.0.1:80\r\n"
        data = f"POST /v2/models/tiny/infer HTTP/1.1\r\n{host}{headers}\r\n".encode()
        assert _parsed(server.raw(data))[0] == status

    @pytest.mark.parametrize(
        "data",
        [
            b"\r\n\r\n", b"nonsense\r\n\r\n", b"GET /v2 HTTP/9.9\r\n\r\n",
            b"GET " + b"a" * 70000 + b" HTTP/1.1\r\n\r\n",
            b"GET /v2 HTTP/1.1\r\n" + b"".join(b"A%d: b\r\n" % number for number in range(200)) + b"\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01", bytes(range(256)),
        ],
    )  # fmt: skip
    def test_what_is_no_http(self, server: Served, data: bytes) -> None:
        with closing(server.connect()) as link:
            link.sendall(data)
            link.shutdown(socket.SHUT_WR)
            answer = _rest(link)
        assert answer == b"" or b"error" in answer


def test_a_connection_is_kept_for_the_next_request(server: Served, tiny_data: Any, name: str) -> None:
    body = json.dumps(_request(tiny_data[0], name)).encode()
    head = b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    with closing(server.connect()) as link:
        for _ in range(3):
            link.sendall(head + body)
            answer = b""
            while b'"outputs"' not in answer or not answer.endswith(b"\n"):
                answer += link.recv(65536)
            assert _parsed(answer)[0] == 200


def _drip(link: socket.socket, until_s: float) -> None:
    """Send a byte every 0.1 s: it never ends the headers."""
    while time.monotonic() < until_s:
        link.sendall(b"a")
        time.sleep(0.1)


def test_slow_clients_are_left_and_too_many_are_refused(
    serving: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeq_agent import Runtime
    from edgeq_agent.serve.http import Server as HttpServer
    from edgeq_agent.serve.limits import Limits
    from edgeq_agent.serve.v2 import Service

    limits = Limits(header_s=0.5, body_s=0.5, idle_s=1.0, connections=3, requests=1)
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
                    b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n12"
                )
                # While it is waited for, its request is the only one that may be.
                time.sleep(0.2)
                status, headers, _ = served.ask("GET", "/v2")
                assert (status, headers["retry-after"]) == (503, "1")
                assert _rest(half) == b""
            with closing(served.connect()) as idle:
                assert _rest(idle) == b""
            held = [served.connect() for _ in range(3)]
            time.sleep(0.2)
            assert served.raw(b"") == b""  # the fourth is closed at once
            for each in held:
                each.close()
            end = time.monotonic() + 10
            while served.ask("GET", "/v2/health/live")[0] != 200:
                assert time.monotonic() < end
        finally:
            assert http.stop(5)
            thread.join(5)


def test_a_clean_stop(serving: Any, tiny_data: Any, name: str) -> None:
    with _serving(serving, "--port", "0") as server:
        known = json.loads(server.ask("GET", "/v2/models/tiny")[2])["inputs"][0]["name"]
        body = json.dumps(_request(tiny_data[0], known)).encode()
        for _ in range(5):
            assert server.ask("POST", "/v2/models/tiny/infer", body)[0] == 200
        head = (
            f"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        with closing(server.connect()) as link, closing(server.connect()) as idle:
            link.sendall(head.encode() + body[:10])  # under way
            time.sleep(0.3)
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            with pytest.raises(OSError, match="refused"):  # no new ones
                server.connect()
            link.sendall(body[10:])
            status, headers, answer = _parsed(_rest(link))
            assert (status, headers["connection"]) == (200, "close"), answer
            assert _rest(idle) == b""
        assert server.process.wait(20) == 0
        assert server.process.stderr is not None
        assert b"Traceback" not in server.process.stderr.read()
    (event,) = serving.call("telemetry").of("window")
    assert event["window"]["inferences"] == 6


def test_a_killed_servers_socket_is_taken_over_and_a_living_ones_is_not(serving: Any) -> None:
    path = serving.home / "serve.sock"
    with _serving(serving) as first:
        assert _refused(serving)[0] == 2
        assert "listens there already" in _refused(serving)[1]
        first.process.kill()
        first.process.wait(10)
        assert path.exists()
        with _serving(serving) as second:
            assert second.ask("GET", "/v2/health/ready")[0] == 200


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (["--port", "0", "--host", "0.0.0.0"], 2, "EQ548"),  # noqa: S104 - what must be refused
        (["--port", "0", "--host", "::"], 2, "EQ548"),
        (["--host", "192.0.2.1"], 2, "EQ548"),
        (["--port", "70000"], 2, "EQ512"),
        (["--unix", "/nonexistent/folder/socket"], 2, "EQ548"),
        (["--unix", "/tmp/" + "a" * 120], 2, "at most 107 bytes"),
        (["--unix", "/dev/null"], 2, "left alone"),
        (["--port", "1", "--unix", "x"], 2, "not allowed"),
        (["--nonsense"], 2, "usage"),
        (["--model", "nobody"], 1, "EQ510"),
        (["--model", "../x"], 2, "EQ512"),
        (["--threads", "0"], 2, "EQ512"),
    ],
)
def test_what_it_does_not_start_with(serving: Any, options: list[str], status: int, words: str) -> None:
    found, said = _refused(serving, *options)
    assert (found, words in said) == (status, True), said
    assert not (serving.home / "serve.sock").exists()


def test_a_port_that_is_taken(serving: Any) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        status, said = _refused(serving, "--port", str(taken.getsockname()[1]))
    assert (status, "EQ548" in said, "in use" in said) == (2, True, True)


def test_an_empty_device(device: Any) -> None:
    status, said = _refused(device)
    assert (status, "EQ510" in said, "deploy" in said) == (1, True, True)


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
    with _serving(serving, "--port", "0") as server:
        assert server.told["models"] == ["tiny"]
        assert "EQ544" in server.told["missing"]["other"]
        assert server.ask("GET", "/v2/health/live")[0] == 200
        assert server.ask("GET", "/v2/health/ready")[0] == 400
        assert server.ask("GET", "/v2/models/tiny/ready")[0] == 200
        assert server.ask("GET", "/v2/models/other/ready")[0] == 400


def test_it_becomes_the_runtimes_own_interpreter(serving: Any, tmp_path: Path) -> None:
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

    with _serving(replace(serving, command=command), "--port", "0") as server:
        assert server.ask("GET", "/v2/health/ready")[0] == 200
        assert os.readlink(f"/proc/{server.process.pid}/exe") == os.path.realpath(serving.command[0])


def _runtime(device: Any) -> str:
    (found,) = os.listdir(device.home / "runtime")
    return found
