"""Heads of requests that two readers could read differently are refused, and the connection ends."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from edgeq_agent.http.errors import Refused
from edgeq_agent.http.head import read_head
from tests.agent.http.in_process import InProcess, serving_here
from tests.agent.served import parsed, rest

GOOD = b"POST /v2/models/x/infer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
SMUGGLED = b"GET /v2/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def here() -> Iterator[InProcess]:
    with serving_here() as server:
        yield server


def statuses(server: InProcess, data: bytes) -> list[int]:
    """Send bytes, and return the status of every response until the server ends the connection."""
    with closing(server.connect()) as link:
        link.sendall(data)
        link.shutdown(socket.SHUT_WR)
        received = rest(link)
    return [int(part.split()[0]) for part in received.split(b"HTTP/1.1 ")[1:]]


def test_the_good_head_of_these_tests_is_good(here: InProcess) -> None:
    data = GOOD + b"Content-Length: 2\r\n\r\n{}" + SMUGGLED
    assert statuses(here, data) == [404, 404]  # no such model; no such path: two requests


HEADS = {
    "two Host headers": b"Host: localhost\r\nContent-Length: 0\r\n\r\n",
    "two Host headers in other case": b"hOST: 127.0.0.1\r\nContent-Length: 0\r\n\r\n",
    "two lengths": b"Content-Length: 0\r\nContent-Length: 48\r\n\r\n",
    "two equal lengths": b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "a list of lengths": b"Content-Length: 0, 0\r\n\r\n",
    "a length with a sign": b"Content-Length: +0\r\n\r\n",
    "a length in hex": b"Content-Length: 0x0\r\n\r\n",
    "a length with an underscore": b"Content-Length: 1_0\r\n\r\n",
    "a length in other digits": "Content-Length: \N{ARABIC-INDIC DIGIT ZERO}\r\n\r\n".encode(),
    "an endless length": b"Content-Length: " + b"9" * 400 + b"\r\n\r\n",
    "a negative length": b"Content-Length: -1\r\n\r\n",
    "an empty length": b"Content-Length:\r\n\r\n",
    "chunked": b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and a length": b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "chunked with a space before the colon": b"Content-Length: 0\r\nTransfer-Encoding : chunked\r\n\r\n",
    "chunked with a tab before the colon": b"Content-Length: 0\r\nTransfer-Encoding\t: chunked\r\n\r\n",
    "an unknown coding": b"Content-Length: 0\r\nTransfer-Encoding: identity\r\n\r\n",
    "an empty coding": b"Content-Length: 0\r\nTransfer-Encoding:\r\n\r\n",
    "a folded coding": b"Content-Length: 0\r\nTransfer-Encoding:\r\n chunked\r\n\r\n",
    "a folded header": b"Content-Length: 0\r\nX-A: b\r\n c\r\n\r\n",
    "a header folded with a tab": b"Content-Length: 0\r\nX-A: b\r\n\tc\r\n\r\n",
    "a first header that is folded": b" Content-Length: 0\r\n\r\n",
    "a space before the colon": b"Content-Length : 0\r\n\r\n",
    "a header without a colon": b"Content-Length: 0\r\nnonsense\r\n\r\n",
    "a header without a name": b"Content-Length: 0\r\n: x\r\n\r\n",
    "a name with a space": b"Content-Length: 0\r\nX A: b\r\n\r\n",
    "a name that is not ASCII": b"Content-Length: 0\r\nX-\xc3\xa4: b\r\n\r\n",
    "a line that ends without CR": b"Content-Length: 0\nX-A: b\r\n\r\n",
    "an end without CR": b"Content-Length: 0\r\n\n",
    "an end of two bare LF": b"Content-Length: 0\n\n",
    "CR in a value": b"Content-Length: 0\r\nX-A: b\rX-B: c\r\n\r\n",
    "two CR": b"Content-Length: 0\r\r\n\r\n",
    "NUL in a value": b"Content-Length: 0\r\nX-A: b\0c\r\n\r\n",
    "ESC in a value": b"Content-Length: 0\r\nX-A: \x1b[2J\r\n\r\n",
    "two content types": b"Content-Length: 0\r\nContent-Type: text/plain\r\n\r\n",
    "two origins": b"Content-Length: 0\r\nOrigin: http://localhost\r\nOrigin: http://evil.example\r\n\r\n",
    "two authorizations": b"Content-Length: 0\r\nAuthorization: a\r\nAuthorization: b\r\n\r\n",
    "two lengths of the JSON part": b"Content-Length: 0\r\nInference-Header-Content-Length: 1\r\n"
    b"Inference-Header-Content-Length: 2\r\n\r\n",
    "another expectation": b"Content-Length: 0\r\nExpect: 200-ok\r\n\r\n",
    "no length": b"\r\n",
    "too many headers": b"".join(b"X-%d: a\r\n" % number for number in range(200)) + b"\r\n",
    "headers of 100 kB": b"X-A: " + b"a" * 100_000 + b"\r\n\r\n",
    "a header that is repeated to 100 kB": b"X-A: aaaaaaaaaaaa\r\n" * 6_000 + b"\r\n",
}  # fmt: skip


@pytest.mark.parametrize("fault", HEADS)
def test_an_ambiguous_head_is_refused(here: InProcess, fault: str) -> None:
    """One refusal, and nothing that follows it is read as a request."""
    before = list(here.service.seen)
    (status,) = statuses(here, GOOD + HEADS[fault] + SMUGGLED)
    assert status in (400, 411, 417, 431, 501)
    assert here.service.seen == before
    assert here.ask("GET", "/v2/health/live")[0] == 200


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET /v2", 400),
        (b"GET  /v2 HTTP/1.1", 400),
        (b"GET /v2 HTTP/1.1 ", 400),
        (b" GET /v2 HTTP/1.1", 400),
        (b"GET\t/v2\tHTTP/1.1", 400),
        (b"GET /v2 /v2 HTTP/1.1", 400),
        (b"GET /v2\x00 HTTP/1.1", 400),
        (b"GET /v\xc3\xa4 HTTP/1.1", 400),
        (b"GET http://localhost/v2 HTTP/1.1", 400),
        (b"GET http://evil.example/v2 HTTP/1.1", 400),
        (b"GET //evil.example/v2 HTTP/1.1", 404),
        (b"GET * HTTP/1.1", 400),
        (b"CONNECT localhost:80 HTTP/1.1", 400),
        (b"GET v2 HTTP/1.1", 400),
        (b"G@T /v2 HTTP/1.1", 400),
        (b"GET /v2 http/1.1", 400),
        (b"GET /v2 HTTP/1.10", 400),
        (b"GET /v2 HTTP/1.2", 505),
        (b"GET /v2 HTTP/2.0", 505),
        (b"PRI * HTTP/2.0", 505),
        (b"GET /v2 HTTP/0.9", 505),
        (b"GET /" + b"a" * 9_000 + b" HTTP/1.1", 414),
        (b"get /v2 HTTP/1.1", 405),
        (b"OPTIONS /v2 HTTP/1.1", 405),
        (b"TRACE /v2 HTTP/1.1", 405),
    ],
)
def test_a_request_line(here: InProcess, line: bytes, status: int) -> None:
    head = line + b"\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    assert statuses(here, head)[:1] == [status]


def test_http_1_0_has_one_request(here: InProcess) -> None:
    data = b"GET /v2 HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n"
    assert statuses(here, data + SMUGGLED) == [200]
    assert statuses(here, b"GET /v2 HTTP/1.1\r\n\r\n") == [400]


def test_another_protocol_has_an_answer_at_once(here: InProcess) -> None:
    with closing(here.connect()) as link:
        link.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        assert parsed(rest(link))[0] == 400


def test_a_refusal_is_read_although_the_body_was_not(here: InProcess) -> None:
    """Closing with unread bytes would reset the connection, and the client would not see the reason."""
    body = bytes(600_000)
    head = GOOD.replace(b"application/json", b"text/plain") + b"Content-Length: %d\r\n\r\n" % len(body)
    with closing(here.connect()) as link:
        link.sendall(head + body)
        status, _, answer = parsed(rest(link))
    assert (status, b"Content-Type" in answer) == (415, True)


def test_a_head_that_is_cut_off_gives_none() -> None:
    head = GOOD + b"Content-Length: 0\r\n\r\n"
    for size in range(len(head)):
        assert read_head(io.BufferedReader(io.BytesIO(head[:size]))) is None
    with pytest.raises(Refused, match="without CR"):
        read_head(io.BufferedReader(io.BytesIO(b"GET /v2 HTTP/1.1\n")))
