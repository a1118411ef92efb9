"""The autostart's files in the agent's home: what is installed, how the last start went, what serves now."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from typing import Any, Callable, NamedTuple, TypeVar

from edgeq_agent.autostart.host_env import HostEnv
from edgeq_agent.calls.fields import Fields
from edgeq_agent.errors import AgentError
from edgeq_agent.platforms.base import SYSTEMD_USER
from edgeq_agent.storage import clock, disk, files
from edgeq_agent.storage.damage import Inspection
from edgeq_agent.storage.home import Home
from edgeq_agent.wire import Json

SCHEMA = "edgeq.service/1"
STARTED_SCHEMA = "edgeq.service-start/1"
SERVING_SCHEMA = "edgeq.service-serve/1"

T = TypeVar("T")


class Spec(NamedTuple):
    """The autostart that the user wants.

    Attributes:
        kind: one of `kinds.KINDS`.
        models: the models to serve; empty starts no server.
        port: the server's port on 127.0.0.1; None is the unix socket in the home.
        token_file: the file on the device whose bearer token a request must send; None asks for none.
        options: the other words of the server's command line (`--sessions=4`).
    """

    kind: str
    models: tuple[str, ...] = ()
    port: int | None = None
    token_file: str | None = None
    options: tuple[str, ...] = ()

    @property
    def socket(self) -> str | None:
        """The path of the unix socket; None for the one in the home, or a port."""
        paths = [word.partition("=")[2] for word in self.options if word.startswith("--unix=")]
        return paths[-1] if paths else None


class Artifacts(NamedTuple):
    """What to install: files as (path, text, mode), links as (path, target), units, and a line for cron."""

    files: tuple[tuple[str, str, int], ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    units: tuple[str, ...] = ()
    crontab: str = ""


@dataclass(frozen=True)
class Record:
    """What is installed.

    Attributes:
        files: the paths of the files; `digests` has the SHA-256 of the text of each.
        stale: paths of an earlier autostart that are about to be removed.
        boot_id: the boot that it was installed in.
    """

    kind: str
    models: tuple[str, ...]
    port: int | None
    files: tuple[str, ...]
    links: tuple[str, ...]
    units: tuple[str, ...]
    digests: tuple[str, ...]
    crontab: str
    stale: tuple[str, ...]
    boot_id: str
    token_file: str | None = None
    options: tuple[str, ...] = ()

    @property
    def spec(self) -> Spec:
        """What the user wanted when it was installed."""
        return Spec(self.kind, self.models, self.port, self.token_file, self.options)

    @property
    def paths(self) -> tuple[str, ...]:
        """Every path that removing the autostart removes."""
        return (*self.links, *self.files, *self.stale)

    def is_intact(self) -> bool:
        """Return whether every file and link is still as it was installed."""
        texts = [_text(path) for path in self.files]
        intact = [
            text is not None and digest(text) == expected for text, expected in zip(texts, self.digests)
        ]
        return all(intact) and all(os.path.islink(path) for path in self.links)

    def same_as(self, other: Record | None) -> bool:
        """Return whether two records describe the same installation; the boot that did it does not count."""
        return other is not None and replace(self, boot_id=other.boot_id) == other


@dataclass(frozen=True)
class Start:
    """How the last start went.

    Attributes:
        since_boot_s: when it ended, in seconds since the boot.
        models: the state of each model after the recovery, as the verb `recover` returns it.
    """

    boot_id: str
    since_boot_s: float
    time_ns: int
    ok: bool
    problem: str
    models: Json

    def to_json(self) -> Json:
        """Return the start as `probe`, `status` and `service` report it."""
        return dict(vars(self), schema=STARTED_SCHEMA)


@dataclass(frozen=True)
class AutostartSummary:
    """What the files of an installed autostart say of it.

    Attributes:
        models: what it serves.
        whole: whether the files are as they were written.
        last: how the last start went; None before the first one.
        seen_at_boot: whether a start was in another boot than the installation.
    """

    kind: str
    models: tuple[str, ...]
    whole: bool
    last: Start | None
    seen_at_boot: bool
    ran_in_this_boot: bool

    def to_json(self) -> Json:
        """Return it as `probe` and `status` report it."""
        return dict(vars(self), models=list(self.models), last=self.last.to_json() if self.last else None)


@dataclass(frozen=True)
class Supervision:
    """The process that keeps the server running where no init system does.

    Attributes:
        token: the process, see `process_token`; empty after it gave up.
        restarts: how often it restarted the server lately.
        problem: why the server ended last.
    """

    token: str
    restarts: int
    problem: str

    def to_json(self) -> Json:
        """Return it as the verb `service` reports it."""
        return dict(vars(self), schema=SERVING_SCHEMA)


def folder(home: str) -> str:
    """Return the folder of the autostart's files."""
    return os.path.join(home, "service")


def starter(home: str) -> str:
    """Return the path of the program that every kind of autostart runs."""
    return os.path.join(folder(home), "start.py")


def read(home: Home) -> Record | None:
    """Return what is installed; None when nothing is, or when its file is damaged."""
    return _read(home, "service.json", _parse_record)


def _parse_record(body: Any) -> Record:
    fields = _of_schema(body, SCHEMA)

    def texts(name: str) -> tuple[str, ...]:
        return tuple(fields.list_of(name, Fields.text))

    return Record(
        kind=fields.text("kind"),
        models=texts("models"),
        port=fields.integer("port", 1, 65535) if fields.has("port") else None,
        files=texts("files"),
        links=texts("links"),
        units=texts("units"),
        digests=texts("digests"),
        crontab=str(fields.raw("crontab") or ""),
        stale=texts("stale"),
        boot_id=fields.text("boot_id"),
        token_file=fields.text("token_file") if fields.has("token_file") else None,
        options=texts("options") if fields.has("options") else (),
    )


def inspections(home: Home) -> list[Inspection]:
    """Return how to recognize and repair the autostart's damaged files."""
    again = "run `edgeq devices service DEVICE --enable` again: until then what is installed is not known"
    return [
        Inspection(os.path.join(folder(home.root), "service.json"), _parse_record, again),
        Inspection(os.path.join(folder(home.root), "started.json"), _parse_start, "how the last start went"),
        Inspection(
            os.path.join(folder(home.root), "serve.json"),
            _parse_supervision,
            "which process keeps the server running; the next start writes it again",
        ),
    ]


def write(home: Home, spec: Spec, artifacts: Artifacts, stale: list[str]) -> None:
    """Record what is about to be installed; a call that dies in the middle then leaves nothing unknown.

    Args:
        stale: paths of an earlier autostart, about to be removed.
    """
    body = {
        "schema": SCHEMA,
        "kind": spec.kind,
        "models": list(spec.models),
        "port": spec.port,
        "token_file": spec.token_file,
        "options": list(spec.options),
        "files": [path for path, _, _ in artifacts.files],
        "links": [path for path, _ in artifacts.links],
        "units": list(artifacts.units),
        "digests": [digest(text) for _, text, _ in artifacts.files],
        "crontab": artifacts.crontab,
        "stale": stale,
        "boot_id": clock.now().boot_id,
        "time_ns": clock.wall_ns(),
    }
    _write(home, "service.json", body)


def remove(home: Home) -> None:
    """Remove the record and what the starts wrote."""
    for name in ("started.json", "serve.json", "service.json"):
        files.remove(os.path.join(folder(home.root), name))
    disk.sync_folder(folder(home.root))


def last_start(home: Home) -> Start | None:
    """Return how the last start went; None before the first one."""
    return _read(home, "started.json", _parse_start)


def _parse_start(body: Any) -> Start:
    fields = _of_schema(body, STARTED_SCHEMA)
    return Start(
        boot_id=fields.text("boot_id"),
        since_boot_s=fields.number("since_boot_s", 0.0),
        time_ns=fields.integer("time_ns", 0, 1 << 63),
        ok=fields.flag("ok"),
        problem=str(fields.raw("problem") or ""),
        models=fields.optional_object("models").json(),
    )


def write_start(home: Home, problem: str, models: Json) -> None:
    """Record how a start went; an empty problem is a success."""
    now = clock.now()
    start = Start(now.boot_id, now.since_boot_ns / 1e9, clock.wall_ns(), not problem, problem, models)
    _write(home, "started.json", start.to_json())


def supervision(home: Home) -> Supervision | None:
    """Return the process that keeps the server running, as it last described itself."""
    return _read(home, "serve.json", _parse_supervision)


def _parse_supervision(body: Any) -> Supervision:
    fields = _of_schema(body, SERVING_SCHEMA)
    return Supervision(
        token=str(fields.raw("token") or ""),
        restarts=fields.integer("restarts", 0, 1 << 31),
        problem=str(fields.raw("problem") or ""),
    )


def write_supervision(home: Home, supervision: Supervision) -> None:
    """Record the process that keeps the server running."""
    _write(home, "serve.json", supervision.to_json())


def remove_supervision(home: Home) -> None:
    """Remove what an earlier supervisor wrote."""
    files.remove(os.path.join(folder(home.root), "serve.json"))


def summary(home: Home) -> AutostartSummary | None:
    """Return what the files alone say of the autostart; None when nothing is installed."""
    record = read(home)
    if record is None:
        return None
    last = last_start(home)
    return AutostartSummary(
        kind=record.kind,
        models=record.models,
        whole=record.is_intact(),
        last=last,
        seen_at_boot=last is not None and last.boot_id != record.boot_id,
        ran_in_this_boot=last is not None and last.boot_id == clock.now().boot_id,
    )


def digest(text: str) -> str:
    """Return the SHA-256 of a file's text."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def name_of(env: HostEnv, kind: str) -> str:
    """Return the name of this home's units; no two homes and no two users of a device share one."""
    if kind == SYSTEMD_USER and env.home == os.path.join(env.login, ".edgeq"):
        return "edgeq"
    return "edgeq-" + hashlib.sha256(f"{env.uid}:{env.home}".encode()).hexdigest()[:8]


def _text(path: str) -> str | None:
    try:
        with open(path, "rb") as stream:
            return stream.read().decode("utf-8", "replace")
    except OSError:
        return None


def _read(home: Home, name: str, parse: Callable[[Any], T]) -> T | None:
    try:
        return parse(files.read_json(os.path.join(folder(home.root), name)))
    except (OSError, ValueError, AgentError):
        return None


def _of_schema(body: Any, schema: str) -> Fields:
    fields = Fields(body)
    fields.one_of("schema", (schema,))
    return fields


def _write(home: Home, name: str, body: Json) -> None:
    disk.make_folders(folder(home.root))
    files.write_json(os.path.join(folder(home.root), name), body)
