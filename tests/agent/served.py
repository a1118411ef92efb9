"""A server of the agent as a process of its own, and what a client of bytes asks it."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any


class Served:
    """A running server."""

    def __init__(self, process: subprocess.Popen[bytes], startup: dict[str, Any]) -> None:
        self.process = process
        self.startup = startup
        self.address = str(startup["address"])

    @property
    def netloc(self) -> str:
        return self.address.partition("//")[2]

    @property
    def socket_path(self) -> str:
        return self.address.partition("unix:")[2]

    def connect(self) -> socket.socket:
        if self.socket_path:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.settimeout(20)
            try:
                connection.connect(self.socket_path)
            except OSError:
                connection.close()
                raise
            return connection
        host, _, port = self.netloc.rpartition(":")
        return socket.create_connection((host.strip("[]"), int(port)), timeout=20)

    def raw(self, data: bytes) -> bytes:
        """Send bytes as they are, and return what comes until the server ends the connection."""
        with closing(self.connect()) as link:
            link.sendall(data)
            return rest(link)

    def ask(
        self, method: str, path: str, body: bytes = b"", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Send one request; return (status, headers in lower case, body)."""
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        lines += [f"Content-Length: {len(body)}"] if body or method == "POST" else []
        if body and "content_type" not in headers:
            lines += ["Content-Type: application/json"]
        return parsed(self.raw("\r\n".join(lines).encode() + b"\r\n\r\n" + body))

    def post(self, model: str, request: Any, **headers: str) -> tuple[int, dict[str, Any]]:
        body = request if isinstance(request, bytes) else json.dumps(request).encode()
        status, _, answer = self.ask("POST", f"/v2/models/{model}/infer", body, **headers)
        return status, json.loads(answer)


def rest(link: socket.socket) -> bytes:
    received = b""
    while chunk := link.recv(65536):
        received += chunk
    return received


def parsed(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    return int(lines[0].split()[1]), headers, body


@contextmanager
def running(device: Any, *options: str) -> Iterator[Served]:
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


def refused(device: Any, *options: str) -> tuple[int, str]:
    done = subprocess.run(
        [*device.command, "serve", "--home", str(device.home), *options],
        capture_output=True, text=True, env=device.environment, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def request_of(sample: Any, name: str = "", **more: Any) -> dict[str, Any]:
    entry = {"name": name, "shape": list(sample.shape), "datatype": "FP32", "data": sample.ravel().tolist()}
    return {"inputs": [entry], **more}
