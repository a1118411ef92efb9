"""Releases on disk: a manifest and links into the blobs, and the one link that says which release serves."""

from __future__ import annotations

import os

from edgeq_agent.blobs import blob_store
from edgeq_agent.errors import BLOB_MISSING, UNKNOWN_MODEL, AgentError
from edgeq_agent.releases import manifest
from edgeq_agent.releases.manifest import Manifest
from edgeq_agent.storage import disk, files, scratch
from edgeq_agent.storage.home import Home


def check_blobs(home: Home, wanted: Manifest) -> None:
    """Refuse a release whose blobs are not all there with their content; a damaged blob is removed.

    Raises:
        AgentError: EQ509, which file's blob is missing.
    """
    for name in sorted(wanted.files):
        sha256, size_bytes = wanted.files[name]
        present = blob_store.has(home, sha256, size_bytes)
        if present and blob_store.intact(home, sha256):
            continue
        files.remove(home.blob(sha256))
        raise AgentError(
            BLOB_MISSING,
            f"{name} of {wanted.model}",
            "its bytes on the device are damaged; they were removed" if present else "not on the device",
            expected=sha256,
            hint="run `edgeq deploy` again: it sends what is missing",
        )


def build(home: Home, wanted: Manifest) -> None:
    """Make the release's folder: built aside, synced, then renamed, so that it is whole or not there."""
    final = home.release(wanted.release)
    if complete(home, wanted):
        return
    temporary = scratch.path(home, "release-" + wanted.release)
    for leftover in (temporary, final):  # damaged since it was made; the lock is held
        scratch.remove(leftover)
    try:
        disk.mkdir(temporary)
        for name, (sha256, _) in wanted.files.items():
            disk.symlink(os.path.join("..", "..", "blobs", "sha256", sha256), os.path.join(temporary, name))
        files.write_json(os.path.join(temporary, "manifest.json"), wanted.body)
        disk.replace(temporary, final)
    except OSError:
        scratch.remove(temporary)
        raise
    disk.sync_folder(home.releases)


def complete(home: Home, wanted: Manifest) -> bool:
    """Tell whether the release's folder is there and says what the manifest says."""
    try:
        stored = read(home, wanted.release)
    except AgentError:
        return False
    links = (os.path.join(home.release(wanted.release), name) for name in wanted.files)
    return stored.body == wanted.body and all(os.path.exists(link) for link in links)


def read(home: Home, release: str) -> Manifest:
    """Return a release's manifest.

    Raises:
        AgentError: EQ509, it is not on the device; EQ505, it was altered.
    """
    try:
        body = files.read_json(os.path.join(home.release(release), "manifest.json"))
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        damaged = isinstance(error, ValueError)
        raise AgentError(
            BLOB_MISSING,
            "release " + release[:12],
            "its manifest on the device is damaged" if damaged else "not on the device",
            hint="run `edgeq status` to see what is there, or `edgeq deploy` to send it",
        ) from error
    return manifest.parse(body, release)


def current(home: Home, model: str) -> str | None:
    """Return the release that serves, or None."""
    try:
        return os.path.basename(os.readlink(os.path.join(home.model(model), "current")))
    except FileNotFoundError:
        return None


def point(home: Home, model: str, release: str | None) -> None:
    """Let `release` serve: the one step that changes what the device does."""
    link = os.path.join(home.model(model), "current")
    if release is None:
        files.remove(link)
        disk.sync_folder(home.model(model))
    else:
        files.replace_link(link, os.path.join("..", "..", "releases", release))


def need_current(home: Home, model: str) -> str:
    """Return the release that serves.

    Raises:
        AgentError: EQ510, no release of this model serves here.
    """
    release = current(home, model)
    if release is None:
        models = sorted(os.listdir(home.models)) if os.path.isdir(home.models) else []
        known = ", ".join(name for name in models if current(home, name))
        raise AgentError(
            UNKNOWN_MODEL,
            model,
            "no release of it serves on this device",
            expected="one of " + known if known else None,
            hint="run `edgeq deploy` for it first",
        )
    return release


def of_model(home: Home, model: str) -> list[str]:
    """Return the ids of all releases of a model that are on the device."""
    found = []
    for release in sorted(os.listdir(home.releases)):
        try:
            body = files.read_json(os.path.join(home.release(release), "manifest.json"))
        except (OSError, ValueError):
            continue  # a damaged release is none
        if isinstance(body, dict) and body.get("model") == model:
            found.append(release)
    return found
