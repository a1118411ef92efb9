"""`edgeq-agent serve`: serve this device's models over HTTP until SIGTERM.

Once the server listens, it prints one JSON line: {"event": "serving", "address", "models", "missing"}. It
needs the interpreter of the models' runtime, and replaces itself when another one started it.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import signal
import stat
import sys
import threading
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from edgeq_agent import wire
from edgeq_agent.calls.fields import Fields
from edgeq_agent.errors import BAD_REQUEST, UNKNOWN_MODEL, UNSUPPORTED, AgentError, one_line
from edgeq_agent.http.access import Access
from edgeq_agent.http.addresses import Sharing
from edgeq_agent.releases import release_store
from edgeq_agent.sdk.session import END, FINISH, RESTART, Rules
from edgeq_agent.storage import disk
from edgeq_agent.storage.code_folder import CODE
from edgeq_agent.storage.home import Home, locate

if TYPE_CHECKING:  # imported late: they need numpy
    from edgeq_agent.http.server import Server
    from edgeq_agent.sdk.runtime import Runtime

_START = "import sys; sys.path.insert(0, {!r}); from edgeq_agent.__main__ import main; main(sys.argv[1:])"
# Set for the runtime's interpreter, so that a wrong one is an error and not a loop.
_INTERPRETER_VARIABLE = "EDGEQ_SERVE_INTERPRETER"
STOP_S = 10.0
_MODES = ("600", "660", "666")
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{16,512}=*")
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?")


class Options(NamedTuple):
    """The command line.

    Attributes:
        address: (host, port), or the path of a unix socket.
        models: the models to serve; empty for all that have a current release.
        threads: of each interpreter.
        deadline_s: requests that take longer fail with 504; None for no deadline.
        body_bytes: the largest request body.
        requests: how many requests may run at the same time.
        access: who may send requests.
        sharing: which users may connect to the unix socket.
        rules: of the sessions of each model.
    """

    home: Home
    address: tuple[str, int] | str
    models: tuple[str, ...]
    threads: int
    deadline_s: float | None
    body_bytes: int
    requests: int
    telemetry: bool
    access: Access
    sharing: Sharing
    rules: Rules


def main(words: list[str]) -> int:
    """Serve, and return the exit status: 0 after a clean stop, 1 when it cannot serve, 2 for wrong usage."""
    namespace = serve_parser(argparse.ArgumentParser).parse_args(words)
    os.umask(0o077)
    try:
        return _serve(_options(namespace), words)
    except AgentError as error:
        sys.stderr.write(f"error[{error.code}]: {one_line(error).partition(': ')[2]}\n")
        return 2 if error.code in ("EQ512", "EQ548") else 1


class _StrictParser(argparse.ArgumentParser):
    """Raises an error of the agent where its base class exits."""

    def error(self, message: str) -> NoReturn:
        raise AgentError(BAD_REQUEST, "options", message)


# A boot service has fields of its own for these.
_NOT_STORED = ("help", "home", "model", "port", "token-file")


def option_words(options: wire.Json, port: int | None) -> tuple[str, ...]:
    """Return the words of options, as a boot service stores them.

    Args:
        options: by the names of the command line (`sessions`, `on-swap`): a text, a number, True for a flag,
            or a list of texts for one that is repeated.
        port: what the server listens on; None for a unix socket.

    Raises:
        AgentError: EQ512, an option is not known, or `serve` would refuse its value.
    """
    words: list[str] = []
    for name, value in sorted(options.items()):
        if name in _NOT_STORED:
            raise AgentError(BAD_REQUEST, f"options.{name}", expected="an option of `serve`")
        for each in value if isinstance(value, list) else [value]:
            words.append(f"--{name}" if each is True else f"--{name}={each}")
    address = [] if port is None else [f"--port={port}"]
    checked = _options(serve_parser(_StrictParser, allow_abbrev=False).parse_args([*address, *words]))
    if options.get("host", "127.0.0.1") not in ("127.0.0.1", "::1") or ("host" in options and port is None):
        raise AgentError(BAD_REQUEST, "options.host", expected="127.0.0.1 or ::1, and a port")
    if isinstance(checked.address, str) and not os.path.isabs(checked.address):
        raise AgentError(
            BAD_REQUEST, "options.unix", expected="an absolute path on the device", got=checked.address
        )
    return tuple(words)


def serve_parser(kind: type[argparse.ArgumentParser], **settings: bool) -> argparse.ArgumentParser:
    description = "Serve models over the Open Inference Protocol v2 (REST)."
    parser = kind(prog="edgeq-agent serve", description=description, **settings)  # type: ignore[arg-type]
    address = parser.add_mutually_exclusive_group()
    address.add_argument("--unix", metavar="PATH", help="unix socket; default: serve.sock in the home")
    address.add_argument("--port", type=int, help="port on 127.0.0.1; 0 chooses a free one")
    parser.add_argument("--host", default="127.0.0.1", help="127.0.0.1 or ::1; other addresses are refused")
    parser.add_argument(
        "--model", action="append", metavar="NAME", help="model to serve (repeatable); default: all"
    )
    parser.add_argument("--home", help="the agent's folder; default: $EDGEQ_HOME or ~/.edgeq")
    parser.add_argument("--threads", type=int, default=1, help="threads of each interpreter; default: 1")
    parser.add_argument("--deadline", type=float, metavar="SECONDS", help="longer requests fail with 504")
    parser.add_argument(
        "--max-body",
        type=int,
        default=32 << 20,
        metavar="BYTES",
        help="largest body; default: 32 MiB",
    )
    parser.add_argument(
        "--max-requests", type=int, default=16, help="requests that run at the same time; default: 16"
    )
    parser.add_argument(
        "--sessions",
        type=int,
        default=16,
        help="sequences of a model that may be open at the same time; default: 16",
    )
    parser.add_argument(
        "--session-idle", type=float, default=60.0, metavar="SECONDS",
        help="a sequence without a request for so long ends; default: 60",
    )  # fmt: skip
    parser.add_argument(
        "--on-swap", default=FINISH, choices=(FINISH, END, RESTART),
        help="what happens to a sequence whose release is replaced; default: finish",
    )  # fmt: skip
    parser.add_argument(
        "--session-finish", type=float, default=60.0, metavar="SECONDS",
        help="how long `finish` lets it go on; default: 60",
    )  # fmt: skip
    parser.add_argument(
        "--token-file", metavar="PATH", help="every request but on health must send this file's bearer token"
    )
    parser.add_argument(
        "--allow-origin", action="append", metavar="ORIGIN", help="web origin that may use it (repeatable)"
    )
    parser.add_argument(
        "--socket-mode", default="600", metavar="MODE", choices=_MODES,
        help="who may connect to the unix socket: 600 its owner (default), 660 a group too, 666 all users",
    )  # fmt: skip
    parser.add_argument("--socket-group", metavar="GROUP", help="the group of the unix socket; implies 660")
    parser.add_argument("--no-telemetry", action="store_true", help="record no telemetry")
    return parser


def _options(namespace: argparse.Namespace) -> Options:
    home = locate(namespace.home)
    fields = Fields(
        {
            "--threads": namespace.threads,
            "--deadline": namespace.deadline,
            "--max-body": namespace.max_body,
            "--max-requests": namespace.max_requests,
            "--port": namespace.port,
            "--model": namespace.model,
        }
    )
    address: tuple[str, int] | str = namespace.unix or home.path("serve.sock")
    if fields.has("--port"):
        address = (namespace.host, fields.integer("--port", 0, 65535))
    elif namespace.host != "127.0.0.1":
        address = (namespace.host, 0)
    return Options(
        home=home,
        address=address,
        models=tuple(fields.model_names("--model")),
        threads=fields.integer("--threads", 1, 256),
        deadline_s=fields.seconds("--deadline", 0.0) if fields.has("--deadline") else None,
        body_bytes=fields.integer("--max-body", 1, 1 << 40),
        requests=fields.integer("--max-requests", 1, 1024),
        telemetry=not namespace.no_telemetry,
        access=_access(namespace),
        sharing=_sharing(namespace, shared=isinstance(address, str)),
        rules=Rules.checked(
            namespace.sessions, namespace.session_idle, namespace.on_swap, namespace.session_finish
        ),
    )


def _access(namespace: argparse.Namespace) -> Access:
    origins = tuple(namespace.allow_origin or ())
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise AgentError(
                BAD_REQUEST, "--allow-origin", expected="http(s)://HOST[:PORT]", got=ascii(origin[:100])
            )
    path = namespace.token_file
    return Access(origins=origins, token=None if path is None else _token(path))


def _token(path: str) -> str:
    """Return the token of a file that only its owner can read."""
    subject = f"--token-file {path}"
    hint = "(umask 077; head -c 32 /dev/urandom | base64 > TOKEN_FILE)"
    try:
        descriptor = disk.open_to_read(path)  # a named pipe would block else
    except OSError as error:
        raise AgentError(BAD_REQUEST, subject, error.strerror or "cannot be read", hint=hint) from error
    with open(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077:
            raise AgentError(
                BAD_REQUEST, subject, "other users can read it, or it is not a file", hint=f"chmod 600 {path}"
            )
        text = stream.read(1024).decode("ascii", "replace").strip()
    if not _TOKEN.fullmatch(text):
        raise AgentError(
            BAD_REQUEST, subject, expected="one token of 16 to 512 letters, digits and ._~+/-", hint=hint
        )
    return text


def _sharing(namespace: argparse.Namespace, shared: bool) -> Sharing:
    mode, group = int(namespace.socket_mode, 8), namespace.socket_group
    if group is not None and mode == 0o600:
        mode = 0o660
    if (group is not None or mode != 0o600) and (not shared or namespace.unix is None):
        # The default socket lies in the agent's folder, which its owner alone can enter.
        raise AgentError(
            BAD_REQUEST, "--socket-mode and --socket-group", "need --unix PATH outside of the agent's folder"
        )
    return Sharing(mode, group)


def _serve(options: Options, words: list[str]) -> int:
    models = options.models or _current_models(options.home)
    _ensure_interpreter(options.home, models, words)
    from edgeq_agent.http.limits import Limits
    from edgeq_agent.http.open_inference import Service
    from edgeq_agent.http.server import Server

    runtimes: dict[str, Runtime] = {}
    missing: dict[str, str] = {}
    service = Service(runtimes, missing)
    limits = Limits(body_bytes=options.body_bytes, requests=options.requests)
    server = Server(options.address, service, limits, options.access, options.sharing)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    try:
        _load(options, models, runtimes, missing)
        _serve_until(ended, server, sorted(runtimes), missing)
        if not server.stop(STOP_S):
            sys.stderr.write(f"edgeq-agent serve: requests were still running after {STOP_S:g} s\n")
    finally:
        server.leave()
        for runtime in runtimes.values():
            runtime.close()
    return 0


def _current_models(home: Home) -> tuple[str, ...]:
    try:
        models = tuple(name for name in sorted(os.listdir(home.models)) if release_store.current(home, name))
    except FileNotFoundError:
        models = ()
    if not models:
        raise AgentError(
            UNKNOWN_MODEL,
            home.root,
            "no model serves on this device",
            hint="deploy one with `edgeq deploy BUNDLE --to DEVICE`",
        )
    return models


def _ensure_interpreter(home: Home, models: tuple[str, ...], words: list[str]) -> None:
    """Replace this process by the runtime's interpreter when this one lacks numpy or the runtime."""
    from edgeq_agent.activation import active_release

    for name in models:
        try:
            backend = active_release.find(home, name).backend
        except AgentError:
            continue  # reported when the model is loaded
        interpreter, module = backend.python, backend.entry.module
        if interpreter is None:
            continue  # a native program; this Python may still have a runtime
        if _can_import("numpy") and _can_import(module):
            return
        if os.environ.get(_INTERPRETER_VARIABLE):
            raise AgentError(UNSUPPORTED, interpreter, "has no numpy or no " + module)
        environment = dict(os.environ, **{_INTERPRETER_VARIABLE: interpreter})
        sys.stdout.flush()
        _exec([interpreter, "-E", "-c", _START.format(CODE), "serve", *words], environment)


def _can_import(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _exec(command: list[str], environment: dict[str, str]) -> NoReturn:
    os.execve(command[0], command, environment)  # noqa: S606 - an argv list, built here


def _load(
    options: Options, models: tuple[str, ...], runtimes: dict[str, Runtime], missing: dict[str, str]
) -> None:
    """Load the models; those that fail are in `missing` with the reason."""
    from edgeq_agent.sdk.runtime import Runtime

    for name in models:
        try:
            runtimes[name] = Runtime(
                name,
                options.home.root,
                options.threads,
                options.telemetry,
                deadline_s=options.deadline_s,
                strict=True,
                sessions=options.rules.limit,
                session_idle_s=options.rules.idle_s,
                on_swap=options.rules.on_swap,
                session_finish_s=options.rules.finish_s,
            )
        except AgentError as error:
            missing[name] = one_line(error)
            sys.stderr.write(f"edgeq-agent serve: {name}: {missing[name]}\n")
    if not runtimes:
        raise AgentError(
            UNKNOWN_MODEL,
            ", ".join(models),
            "none of them can be served",
            hint="`edgeq status` shows the device's models",
        )


def _serve_until(ended: threading.Event, server: Server, models: list[str], missing: dict[str, str]) -> None:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True)
    thread.start()
    event = {"event": "serving", "address": server.address, "models": models, "missing": missing}
    sys.stdout.write(wire.dump(event).decode())
    sys.stdout.flush()
    ended.wait()
