"""Requests that `edgeq-agent serve` refuses, each with a status and a reason; the server keeps running."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from edgeq_agent.http.open_inference import Reply
from tests.agent.http.in_process import Recording, serving_here
from tests.agent.served import Served, parsed, request_of, rest

pytestmark = pytest.mark.convert


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
            ({"shape": [1 << 20, 1 << 20]}, "elements"),
            ({"shape": [10**4000, 10**4000]}, "shape"),
            ({"shape": [0, 10**300], "data": []}, "shape"),
            ({"shape": [0, 6, 6, 2], "data": []}, "EQ540"),
            ({"data": [10**400] * 72}, "FP32"),
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
    def test_a_wrong_input_is_refused_with_its_reason(
        self, server: Served, tiny_data: Any, name: str, changes: Any, words: str
    ) -> None:
        request = request_of(tiny_data[0], name)
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
    def test_a_wrong_request_is_refused_with_its_reason(
        self, server: Served, tiny_data: Any, name: str, changes: Any, words: str
    ) -> None:
        status, answer = server.post("tiny", request_of(tiny_data[0], name, **changes))
        assert (status, words in answer["error"]) == (400, True), answer

    def test_an_answer_after_the_deadline(self, server: Served, tiny_data: Any, name: str) -> None:
        request = request_of(tiny_data[0], name, parameters={"deadline_s": 1e-9})
        status, answer = server.post("tiny", request)
        assert (status, "EQ542" in answer["error"]) == (504, True), answer

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 5000, b'{"inputs": NaN}'])
    def test_a_body_that_is_not_a_request(self, server: Served, body: bytes) -> None:
        assert server.post("tiny", body)[0] == 400

    def test_nan_in_json_is_refused_by_the_inputs_name(self, server: Served, name: str) -> None:
        request = request_of(np.full((6, 6, 2), np.nan, np.float32), name)
        status, answer = server.post("tiny", request)
        assert (status, "EQ541" in answer["error"]) == (400, True)

    @pytest.mark.parametrize("length", ["x", "-1", "1000000", "\u0663", "9" * 30])
    def test_a_malformed_header_length(self, server: Served, tiny_data: Any, name: str, length: str) -> None:
        body = json.dumps(request_of(tiny_data[0], name)).encode()
        status, answer = server.post("tiny", body, inference_header_content_length=length)
        assert (status, "Inference-Header" in answer["error"]) == (400, True)

    @pytest.mark.parametrize(("size", "tail"), [(288, 287), (288, 289), (4, 288), (True, 288), ("288", 288)])
    def test_binary_data_of_a_wrong_size(self, server: Served, name: str, size: Any, tail: int) -> None:
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
        got, headers, body = server.ask(method, path)
        assert got == status
        assert headers["content-type"] == "application/json"
        assert method == "HEAD" or set(json.loads(body)) == {"error"}

    def test_a_body_that_is_too_large_is_refused_before_it_is_sent(self, server: Served) -> None:
        head = b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100001\r\n"
        for more in (b"\r\n", b"Expect: 100-continue\r\n\r\n"):
            status, headers, body = parsed(server.raw(head + more))
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
    def test_wrong_headers_have_their_http_status(self, server: Served, headers: str, status: int) -> None:
        host = "" if "Host" in headers else "Host: 127.0.0.1:80\r\n"
        data = f"POST /v2/models/tiny/infer HTTP/1.1\r\n{host}{headers}\r\n".encode()
        assert parsed(server.raw(data))[0] == status

    @pytest.mark.parametrize(
        "data",
        [
            b"\r\n\r\n", b"nonsense\r\n\r\n", b"GET /v2 HTTP/9.9\r\n\r\n",
            b"GET " + b"a" * 70000 + b" HTTP/1.1\r\n\r\n",
            b"GET /v2 HTTP/1.1\r\n" + b"".join(b"A%d: b\r\n" % number for number in range(200)) + b"\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01", bytes(range(256)),
        ],
    )  # fmt: skip
    def test_malformed_http(self, server: Served, data: bytes) -> None:
        with closing(server.connect()) as link:
            link.sendall(data)
            link.shutdown(socket.SHUT_WR)
            answer = rest(link)
        assert answer == b"" or b"error" in answer


class Faulty(Recording):
    """A service that has a bug."""

    def respond(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Respond to a request."""
        if path == "/v2":
            raise KeyError("of a fault")
        return super().respond(method, path, headers, body)


def test_a_bug_is_an_answer_and_the_server_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    with serving_here(service=Faulty()) as server:
        status, headers, body = server.ask("GET", "/v2")
        assert (status, headers["connection"]) == (500, "close")
        assert json.loads(body) == {"error": "a bug: KeyError: 'of a fault'"}
        assert server.ask("GET", "/v2/health/live")[0] == 200
    assert "Traceback" in capsys.readouterr().err
