"""What is installed so that the agent starts with the device, and how the last start went."""

from __future__ import annotations

import hashlib
import os
from typing import NamedTuple

from edgeq_agent.autostart.host_env import USER, Surroundings
from edgeq_agent.storage import clock, disk, files
from edgeq_agent.storage.home import Home
from edgeq_agent.wire import Json

SCHEMA = "edgeq.service/1"
STARTED_SCHEMA = "edgeq.service-start/1"
SERVING_SCHEMA = "edgeq.service-serve/1"


class Wanted(NamedTuple):
    """A start that was asked for.

    Attributes:
        kind: one of `surroundings.KINDS`.
        models: what is served from the start on; empty: nothing.
        port: of 127.0.0.1; None is the unix socket in the home.
    """

    kind: str
    models: tuple[str, ...] = ()
    port: int | None = None


class Installed(NamedTuple):
    """Files and links that make a start, as (path, text, mode) and (path, target); no input becomes code."""

    files: tuple[tuple[str, str, int], ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    units: tuple[str, ...] = ()
    crontab: str = ""


def folder(home: str) -> str:
    """Return the folder of what belongs to the start."""
    return os.path.join(home, "service")


def starter(home: str) -> str:
    """Return the path of the program that everything starts."""
    return os.path.join(folder(home), "start.py")


def read(home: Home) -> Json | None:
    """Return the record, or None where nothing is installed (or it cannot be read)."""
    return _read(os.path.join(folder(home.root), "service.json"), SCHEMA)


def write(home: Home, wanted: Wanted, made: Installed, stale: list[str]) -> None:
    """Note what is about to be installed: a call that dies half-way leaves nothing unknown behind.

    Args:
        stale: paths of an earlier start, about to be removed.
    """
    disk.make_folders(folder(home.root))
    body = {
        "schema": SCHEMA,
        "kind": wanted.kind,
        "models": list(wanted.models),
        "port": wanted.port,
        "files": [path for path, _, _ in made.files],
        "links": [path for path, _ in made.links],
        "units": list(made.units),
        "digests": [digest(text) for _, text, _ in made.files],
        "crontab": made.crontab,
        "stale": stale,
        "boot_id": clock.now().boot_id,
        "time_ns": clock.wall_ns(),
    }
    files.write_json(os.path.join(folder(home.root), "service.json"), body)


def forget_serving(home: Home) -> None:
    """Remove what an earlier process that kept serving said."""
    files.remove(os.path.join(folder(home.root), "serve.json"))


def forget(home: Home) -> None:
    """Remove the record and what the starts left."""
    for name in ("started.json", "serve.json", "service.json"):
        files.remove(os.path.join(folder(home.root), name))
    disk.sync_folder(folder(home.root))


def started(home: Home) -> Json | None:
    """Return how the last start went: {boot_id, since_boot_s, ok, problem, models, time_ns}."""
    return _read(os.path.join(folder(home.root), "started.json"), STARTED_SCHEMA)


def note_start(home: Home, ok: bool, problem: str, models: Json) -> None:
    """Note how a start went."""
    now = clock.now()
    disk.make_folders(folder(home.root))
    body = {
        "schema": STARTED_SCHEMA,
        "boot_id": now.boot_id,
        "since_boot_s": now.since_boot_ns / 1e9,
        "time_ns": clock.wall_ns(),
        "ok": ok,
        "problem": problem,
        "models": models,
    }
    files.write_json(os.path.join(folder(home.root), "started.json"), body)


def serving(home: Home) -> Json | None:
    """Return what the process that keeps serving said: {token, restarts, problem}."""
    return _read(os.path.join(folder(home.root), "serve.json"), SERVING_SCHEMA)


def note_serving(home: Home, token: str, restarts: int, problem: str) -> None:
    """Note who keeps serving (an empty token: nobody any more), and how often it began again."""
    body = {"schema": SERVING_SCHEMA, "token": token, "restarts": restarts, "problem": problem}
    files.write_json(os.path.join(folder(home.root), "serve.json"), body)


def summary(home: Home) -> Json | None:
    """Return what `probe` and `status` say of it, from its files alone; None where nothing is installed."""
    body = read(home)
    if body is None:
        return None
    last = started(home)
    return {
        "kind": body["kind"],
        "models": body["models"],
        "whole": whole(body),
        "last": last,
        "seen_at_boot": last is not None and last["boot_id"] != body["boot_id"],
        "ran_in_this_boot": last is not None and last["boot_id"] == clock.now().boot_id,
    }


def same(one: Json | None, other: Json | None) -> bool:
    """Tell whether two records are of the same start."""
    names = ("kind", "models", "port", "files", "digests", "links", "crontab", "stale")
    return one is not None and other is not None and all(one[name] == other[name] for name in names)


def whole(body: Json) -> bool:
    """Tell whether all that was installed is still there as it was written."""
    found = (_text(path) for path in body["files"])
    same = [text is not None and digest(text) == want for text, want in zip(found, body["digests"])]
    return all(same) and all(os.path.islink(path) for path in body["links"])


def digest(text: str) -> str:
    """Return the SHA-256 of a file's text."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def name_of(found: Surroundings, kind: str) -> str:
    """Return what the start of this home is called: homes and users of one device must not meet."""
    if kind == USER and found.home == os.path.join(found.login, ".edgeq"):
        return "edgeq"
    return "edgeq-" + hashlib.sha256(f"{found.uid}:{found.home}".encode()).hexdigest()[:8]


def _text(path: str) -> str | None:
    try:
        with open(path, "rb") as stream:
            return stream.read().decode("utf-8", "replace")
    except OSError:
        return None


def _read(path: str, schema: str) -> Json | None:
    try:
        body = files.read_json(path)
    except (OSError, ValueError):
        return None
    return body if isinstance(body, dict) and body.get("schema") == schema else None
