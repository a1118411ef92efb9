"""`edgeq-agent serve`: the models of this device over HTTP, until SIGTERM.

One JSON line on standard output once it listens: {"event": "serving", "address", "models", "missing"}. Runs
under the interpreter of the models' runtime; where this one is another, it is replaced by that.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import sys
import threading
from typing import Any, NoReturn

from edgeq_agent import wire
from edgeq_agent.calls import request
from edgeq_agent.errors import UNKNOWN_MODEL, UNSUPPORTED, AgentError, one_line
from edgeq_agent.releases import release_store
from edgeq_agent.storage import home
from edgeq_agent.storage.home import Home

# What holds the package, a folder or a .pyz.
_CODE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_START = "import sys; sys.path.insert(0, {!r}); from edgeq_agent.__main__ import main; main(sys.argv[1:])"
_MARK = "EDGEQ_SERVE_INTERPRETER"
_STOP_S = 10.0


def main(words: list[str]) -> int:
    """Serve, and return the exit status: 0 after a clean stop, 1 when it could not serve, 2 for its usage."""
    asked = _arguments().parse_args(words)
    os.umask(0o077)
    try:
        return _serve(asked, words)
    except AgentError as error:
        sys.stderr.write(f"error[{error.code}]: {one_line(error).partition(': ')[2]}\n")
        return 2 if error.code in ("EQ512", "EQ548") else 1


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edgeq-agent serve", description="Serve models over the Open Inference Protocol v2 (REST)."
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--unix", metavar="PATH", help="a unix socket; default: serve.sock in the home")
    where.add_argument("--port", type=int, help="of 127.0.0.1; 0 takes a free one")
    parser.add_argument("--host", default="127.0.0.1", help="127.0.0.1 or ::1; nothing else is accepted")
    parser.add_argument("--model", action="append", metavar="NAME", help="default: all that serve here")
    parser.add_argument("--home", help="the agent's home; default $EDGEQ_HOME or ~/.edgeq")
    parser.add_argument("--threads", type=int, default=1, help="of each interpreter")
    parser.add_argument("--deadline", type=float, metavar="SECONDS", help="late answers become 504")
    parser.add_argument("--max-body", type=int, default=32 << 20, metavar="BYTES", help="of one request")
    parser.add_argument("--max-requests", type=int, default=16, help="at the same time")
    parser.add_argument("--no-telemetry", action="store_true")
    return parser


def _serve(asked: argparse.Namespace, words: list[str]) -> int:
    place = home.locate(asked.home)
    names = _names(place, asked.model)
    _right_interpreter(place, names, words)
    from edgeq_agent.http.limits import Limits
    from edgeq_agent.http.open_inference import Service
    from edgeq_agent.http.server import Server

    for option, value in (("--threads", asked.threads), ("--max-body", asked.max_body)):
        request.integer({option: value}, option, 1, 1 << 40)
    request.integer({"--max-requests": asked.max_requests}, "--max-requests", 1, 1024)
    address: Any = asked.unix or place.path("serve.sock")
    if asked.port is not None:
        address = (asked.host, request.integer({"--port": asked.port}, "--port", 0, 65535))
    elif asked.host != "127.0.0.1":
        address = (asked.host, 0)
    runtimes: dict[str, Any] = {}
    missing: dict[str, str] = {}
    service = Service(runtimes, missing)
    server = Server(address, service, Limits(body_bytes=asked.max_body, requests=asked.max_requests))
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    try:
        _load(place, names, asked, runtimes, missing)
        _serve_until(ended, server, {"models": sorted(runtimes), "missing": missing})
        if not server.stop(_STOP_S):
            sys.stderr.write(f"edgeq-agent serve: requests were still running after {_STOP_S:g} s\n")
    finally:
        server.leave()
        for runtime in runtimes.values():
            runtime.close()
    return 0


def _names(place: Home, asked: list[str] | None) -> list[str]:
    if asked:
        return [request.model_name({"model": name}) for name in dict.fromkeys(asked)]
    try:
        found = [name for name in sorted(os.listdir(place.models)) if release_store.current(place, name)]
    except FileNotFoundError:
        found = []
    if not found:
        raise AgentError(
            UNKNOWN_MODEL,
            place.root,
            "no model serves on this device",
            hint="run `edgeq deploy` for one first",
        )
    return found


def _right_interpreter(place: Home, names: list[str], words: list[str]) -> None:
    """Become the runtime's own interpreter when this one has no numpy or no runtime."""
    from edgeq_agent.activation import active_release

    for name in names:
        try:
            backend = active_release.find(place, name).backend
        except AgentError:
            continue  # told when it is loaded
        interpreter, module = backend.python, backend.entry.module
        if interpreter is None:
            continue  # a native program; this Python may still have a runtime
        if _has(module):
            return
        if os.environ.get(_MARK):
            raise AgentError(UNSUPPORTED, interpreter, "has no numpy or no " + module)
        environment = dict(os.environ, **{_MARK: interpreter})
        sys.stdout.flush()
        _become([interpreter, "-E", "-c", _START.format(_CODE), "serve", *words], environment)


def _has(module: str) -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ("numpy", module))


def _become(command: list[str], environment: dict[str, str]) -> NoReturn:
    os.execve(command[0], command, environment)  # noqa: S606 - an argv list, of our own making


def _load(
    place: Home,
    names: list[str],
    asked: argparse.Namespace,
    runtimes: dict[str, Any],
    missing: dict[str, str],
) -> None:
    from edgeq_agent.sdk.runtime import Runtime

    for name in names:
        try:
            runtimes[name] = Runtime(
                name,
                place.root,
                asked.threads,
                not asked.no_telemetry,
                deadline_s=asked.deadline,
                strict=True,
            )
        except AgentError as error:
            missing[name] = one_line(error)
            sys.stderr.write(f"edgeq-agent serve: {name}: {missing[name]}\n")
    if not runtimes:
        raise AgentError(
            UNKNOWN_MODEL,
            ", ".join(names),
            "none of them can be served",
            hint="`edgeq status` tells what is there",
        )


def _serve_until(ended: threading.Event, server: Any, told: dict[str, Any]) -> None:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True)
    thread.start()
    sys.stdout.write(wire.dump(dict(told, event="serving", address=server.address)).decode())
    sys.stdout.flush()
    ended.wait()
