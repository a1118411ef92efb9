"""Requests of web pages, which a server on this machine refuses; the token and shared sockets of users."""

from __future__ import annotations

import ast
import http.server
import json
import os
import re
import shutil
import stat
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, ClassVar

import pytest

from edgeq_agent.http.access import Access
from edgeq_agent.http.addresses import Sharing
from edgeq_agent.http.head import Head
from edgeq_agent.sdk.errors import AddressRefused
from tests.agent.http.in_process import InProcess, serving_here
from tests.agent.served import parsed

JSON = "application/json"
NOBODY = 65534


@pytest.fixture(scope="module")
def here() -> Iterator[InProcess]:
    with serving_here() as server:
        yield server


def post(server: InProcess, headers: dict[str, str | None], body: bytes = b"{}") -> int:
    """Post with these headers beside or instead of the usual ones; None leaves one out."""
    usual: dict[str, str | None] = {"Host": server.netloc or "localhost", "Content-Type": JSON}
    lines = [f"{name}: {value}" for name, value in {**usual, **headers}.items() if value is not None]
    text = "\r\n".join(["POST /v2/models/x/infer HTTP/1.1", *lines, f"Content-Length: {len(body)}"])
    return parsed(server.raw(text.encode() + b"\r\nConnection: close\r\n\r\n" + body))[0]


SERVED, PAGE, TYPE = 404, 403, 415  # there is no model `x`: a 404 shows that the request was served


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, SERVED),
        ({"Content-Type": "application/octet-stream"}, SERVED),
        ({"Content-Type": "Application/JSON; charset=utf-8"}, SERVED),
        ({"Content-Type": None, "Inference-Header-Content-Length": "2"}, SERVED),
        ({"Content-Type": None}, TYPE),
        ({"Content-Type": ""}, TYPE),
        ({"Content-Type": "text/plain"}, TYPE),
        ({"Content-Type": "text/plain;charset=UTF-8"}, TYPE),
        ({"Content-Type": "application/x-www-form-urlencoded"}, TYPE),
        ({"Content-Type": "multipart/form-data; boundary=x"}, TYPE),
        ({"Content-Type": "text/plain; application/json"}, TYPE),
        ({"Content-Type": "application/json, text/plain"}, TYPE),
        ({"Content-Type": "application/jsonp"}, TYPE),
        ({"Content-Type": "text/plain", "Inference-Header-Content-Length": "2"}, TYPE),
        ({"Origin": "http://evil.example"}, PAGE),
        ({"Origin": "null"}, PAGE),
        ({"Origin": ""}, PAGE),
        ({"Origin": "http://localhost:1"}, PAGE),
        ({"Origin": "https://127.0.0.1"}, PAGE),
        ({"Origin": "file://"}, PAGE),
        ({"Origin": "chrome-extension://abcdefgh"}, PAGE),
        ({"Sec-Fetch-Site": "cross-site"}, PAGE),
        ({"Sec-Fetch-Site": "same-site"}, PAGE),
        ({"Sec-Fetch-Site": "Cross-Site"}, PAGE),
        ({"Sec-Fetch-Site": "anything"}, PAGE),
        ({"Sec-Fetch-Site": "same-origin"}, SERVED),
        ({"Sec-Fetch-Site": "none"}, SERVED),
        ({"Host": "evil.example"}, PAGE),
        ({"Host": "localhost.evil.example"}, PAGE),
        ({"Host": "127.0.0.1.evil.example:80"}, PAGE),
        ({"Host": "127.0.0.1@evil.example"}, PAGE),
        ({"Host": "localhost:80:90"}, PAGE),
        ({"Host": "localhost:"}, PAGE),
        ({"Host": "127.1"}, PAGE),
        ({"Host": "0.0.0.0"}, PAGE),  # noqa: S104 - a name by which browsers reached loopback
        ({"Host": "[::]"}, PAGE),
        ({"Host": ""}, PAGE),
        ({"Host": "LOCALHOST:8000"}, SERVED),
        ({"Host": "[::1]:8000"}, SERVED),
    ],
)  # fmt: skip
def test_a_post_of_a_page_is_refused(here: InProcess, headers: dict[str, str | None], status: int) -> None:
    before = len(here.service.seen)
    assert post(here, headers) == status
    assert len(here.service.seen) - before == (status == SERVED)


def test_the_own_origin_and_allowed_ones(here: InProcess) -> None:
    assert post(here, {"Origin": here.address}) == SERVED
    with serving_here(access=Access(origins=("https://panel.example",))) as server:
        assert post(server, {"Origin": "https://panel.example", "Sec-Fetch-Site": "same-site"}) == SERVED
        assert post(server, {"Origin": "https://other.example"}) == PAGE


def test_a_page_reads_nothing_either(here: InProcess) -> None:
    status, headers, _ = here.ask("GET", "/v2", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors")
    assert status == PAGE
    status, headers, _ = here.ask("OPTIONS", "/v2/models/x/infer", Origin="http://evil.example")
    assert status == PAGE
    assert not [name for name in headers if name.startswith("access-control")]
    assert here.ask("GET", "/v2")[1]["cross-origin-resource-policy"] == "same-origin"


PAGE_OF_ATTACKS = """<!doctype html><title>evil</title><iframe name="sink"></iframe><script>
const body = JSON.stringify({inputs: []}), log = [];
const attempts = TARGETS.flatMap(target => [
  () => fetch(target, {method: 'POST', mode: 'no-cors', body}),
  () => fetch(target, {method: 'POST', mode: 'no-cors', body: new Blob([body])}),
  () => fetch(target, {method: 'POST', mode: 'no-cors', body: new URLSearchParams({a: body})}),
  () => fetch(target, {method: 'POST', body, headers: {'Content-Type': 'application/json'}}),
  () => fetch(target, {method: 'POST', body, headers: {'Inference-Header-Content-Length': '2'}}),
  () => fetch(target, {method: 'POST', mode: 'no-cors', referrerPolicy: 'no-referrer', body}),
  async () => navigator.sendBeacon(target, body),
  async () => navigator.sendBeacon(target, new Blob([body], {type: 'application/x-www-form-urlencoded'})),
  () => new Promise(done => { const r = new XMLHttpRequest(); r.onloadend = done;
                              r.open('POST', target); r.send(body); }),
  () => new Promise(done => { const i = new Image(); i.onload = i.onerror = done; i.src = target; }),
  async () => { for (const enctype of ['text/plain', 'multipart/form-data', '']) {
    const f = document.createElement('form'); f.action = target; f.method = 'POST'; f.target = 'sink';
    f.enctype = enctype; f.innerHTML = '<input name="a" value="b">'; document.body.append(f); f.submit();
    await new Promise(done => setTimeout(done, 150)); } },
]);
(async () => {
  for (const attempt of attempts) {
    try { await attempt(); log.push('sent'); } catch (error) { log.push('failed'); }
  }
  await fetch('/done', {method: 'POST', body: JSON.stringify(log)});
})();
</script>"""


class Site(http.server.BaseHTTPRequestHandler):
    """A foreign web site: its page, and what the page reports at its end."""

    server: Any

    def do_GET(self) -> None:
        page = self.server.page.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def do_POST(self) -> None:
        self.server.log = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()
        self.server.done.set()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextmanager
def site(targets: list[str]) -> Iterator[Any]:
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.page = PAGE_OF_ATTACKS.replace("TARGETS", json.dumps(targets))
    server.done, server.log = threading.Event(), []
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


class Arriving(Access):
    """The checks of a server, and what arrived there."""

    heads: ClassVar[list[Head]] = []

    def check(self, head: Head) -> None:
        """Check a request."""
        self.heads.append(head)
        super().check(head)


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["site", "rebinding"])
def test_a_page_in_a_real_browser_reaches_no_model(tmp_path: Path, scheme: str) -> None:
    """The page tries every way of a POST; `rebinding` calls the server by a name of the page's own site."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert browser is not None
    Arriving.heads.clear()
    with serving_here(access=Arriving()) as server:
        port = server.netloc.rpartition(":")[2]
        names = ["127.0.0.1", "localhost"] if scheme == "site" else ["evil.example"]
        targets = [f"http://{name}:{port}/v2/models/x/infer" for name in names]
        with site(targets) as page:
            argv = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
            argv += [f"--user-data-dir={tmp_path / 'profile'}", "--disable-background-networking"]
            argv += ["--host-resolver-rules=MAP evil.example 127.0.0.1", "--remote-debugging-port=0"]
            # A browser that protects the local network on its own would hide what the server does.
            argv += ["--disable-features=LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests"]
            url = f"http://evil.example:{page.server_address[1]}/"
            process = subprocess.Popen([*argv, url], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                assert page.done.wait(90)
            finally:
                process.terminate()
                process.wait(30)
        posts = [head for head in Arriving.heads if head.method == "POST"]
        assert len(posts) >= 8 * len(targets), "the browser itself refused, so nothing was tested"
        assert {head.headers.get("content-type") for head in posts} >= {None, "text/plain;charset=UTF-8"}
        assert server.service.seen == []
        assert server.ask("GET", "/v2/health/ready")[0] == 200


TOKEN = "correct-horse-battery-staple"


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        ("Bearer " + TOKEN, SERVED),
        ("bearer " + TOKEN, SERVED),
        ("Bearer " + TOKEN + "x", 401),
        ("Bearer " + TOKEN[:-1], 401),
        ("Bearer ", 401),
        ("Bearer", 401),
        ("Basic " + TOKEN, 401),
        (TOKEN, 401),
        ("Bearer \xe4", 401),
        (None, 401),
    ],
)
def test_the_bearer_token(authorization: str | None, status: int) -> None:
    with serving_here(access=Access(token=TOKEN)) as server:
        assert post(server, {"Authorization": authorization}) == status
        assert len(server.service.seen) == (status == SERVED)
        got, headers, _ = server.ask("GET", "/v2/models/x")
        assert (got, headers["www-authenticate"]) == (401, "bearer")
        assert server.ask("GET", "/v2/health/live")[0] == 200
        assert server.ask("GET", "/v2/health/ready")[0] == 200


def connects(path: Path, uid: int, groups: list[int]) -> bool:
    """Return whether another user can connect to a socket."""
    code = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    done = subprocess.run(
        ["/usr/bin/python3", "-c", code, str(path)], user=uid, group=uid, extra_groups=groups,
        capture_output=True, text=True, check=False, cwd="/",
    )  # fmt: skip
    assert done.returncode == 0 or "PermissionError" in done.stderr, done.stderr
    return done.returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to act as other users")
@pytest.mark.parametrize(
    ("sharing", "mode", "expected"),
    [
        (Sharing(), 0o600, (False, False)),
        (Sharing(mode=0o660, group="daemon"), 0o660, (True, False)),
        (Sharing(mode=0o666), 0o666, (True, True)),
    ],
)
def test_which_users_may_connect_to_a_socket(
    tmp_path_factory: pytest.TempPathFactory, sharing: Sharing, mode: int, expected: tuple[bool, bool]
) -> None:
    """A user in the group, and one outside of it."""
    import grp

    folder = Path(f"/tmp/edgeq-shared-{os.getpid()}")
    folder.mkdir(mode=0o755)
    try:
        with serving_here(path := folder / "s.sock", sharing=sharing):
            assert stat.S_IMODE(path.stat().st_mode) == mode
            daemon = grp.getgrnam("daemon").gr_gid
            assert (connects(path, NOBODY, [daemon]), connects(path, NOBODY, [])) == expected
        assert not path.exists()
        with (
            pytest.raises(AddressRefused, match="no such group"),
            serving_here(path, sharing=Sharing(mode=0o660, group="no-such-group")),
        ):
            pass
        assert not path.exists()
    finally:
        shutil.rmtree(folder)


def statuses_in(folder: Path) -> set[int]:
    """Return the HTTP statuses of failures that the Python files of a folder name."""
    trees = [ast.parse(path.read_text("utf-8")) for path in folder.glob("*.py")]
    numbers = {
        node.value
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and type(node.value) is int and node.value >= 400
    }
    return numbers & {int(status) for status in HTTPStatus}


def test_the_page_lists_the_statuses_of_the_server_and_each_has_a_test(project_root: Path) -> None:
    text = (project_root / "docs" / "runtime.md").read_text("utf-8")
    table = text.partition("| status | reason |")[2].partition("\n\n")[0]
    first_cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("| ")]
    listed = {int(status) for cell in first_cells for status in re.findall(r"\d{3}", cell)}
    assert listed == statuses_in(project_root / "device_agents" / "edgeq_agent" / "http")
    assert listed - statuses_in(project_root / "tests" / "agent" / "http") == set()
