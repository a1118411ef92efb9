"""Releases on disk: a manifest and links to the blobs, and the link `current` to the one that serves."""

from __future__ import annotations

import errno
import os
from typing import Iterable

from edgeq_agent import wire
from edgeq_agent.blobs import blob_store
from edgeq_agent.errors import BLOB_MISSING, UNKNOWN_MODEL, AgentError
from edgeq_agent.releases import manifest as manifests
from edgeq_agent.releases.manifest import MANIFEST_FILE, Manifest
from edgeq_agent.storage import disk, files, scratch
from edgeq_agent.storage.home import Home


def check_blobs(home: Home, manifest: Manifest) -> None:
    """Refuse a release unless all its blobs are on the device and undamaged; a damaged blob is removed.

    Raises:
        AgentError: EQ509, names the file whose blob is missing.
    """
    for name in sorted(manifest.files):
        sha256, size_bytes = manifest.files[name]
        present = blob_store.has(home, sha256, size_bytes)
        if present and blob_store.is_intact(home, sha256):
            continue
        scratch.remove(home.blob(sha256))
        problem = "its bytes on the device are damaged; they were removed" if present else "not on the device"
        raise _lacks(name, manifest, problem)


def check_files(home: Home, manifest: Manifest) -> None:
    """Refuse a release of which a file cannot be opened or has another size; reads no content.

    Raises:
        AgentError: EQ509, names the file.
    """
    for name in sorted(manifest.files):
        path = os.path.join(home.release(manifest.release), name)
        if not os.path.isfile(path):
            raise _lacks(name, manifest, "not on the device")
        if not os.access(path, os.R_OK):
            raise _lacks(name, manifest, "this user cannot read it on the device")
        if os.path.getsize(path) != manifest.files[name][1]:
            raise _lacks(name, manifest, "its bytes on the device are damaged")


def _lacks(name: str, manifest: Manifest, problem: str) -> AgentError:
    return AgentError(
        BLOB_MISSING,
        f"{name} of {manifest.model}",
        problem,
        expected=manifest.files[name][0],
        hint="run `edgeq deploy BUNDLE --to DEVICE` again: it sends what is missing",
    )


def build(home: Home, manifest: Manifest) -> None:
    """Make the release's folder: build it aside, sync it, rename it, so that it is complete or absent."""
    final = home.release(manifest.release)
    if complete(home, manifest):
        return
    temporary = scratch.path(home, "release-" + manifest.release)
    for leftover in (temporary, final):  # interrupted or damaged; the lock is held
        scratch.remove(leftover)
    try:
        disk.mkdir(temporary)
        for name, (sha256, _) in manifest.files.items():
            disk.symlink(os.path.join("..", "..", "blobs", "sha256", sha256), os.path.join(temporary, name))
        files.write_json(os.path.join(temporary, MANIFEST_FILE), manifest.document)
        disk.replace(temporary, final)
    except OSError:
        scratch.remove(temporary)
        raise
    disk.sync_folder(home.releases)


def complete(home: Home, manifest: Manifest) -> bool:
    """Return whether the release's folder exists, with this manifest and all its files."""
    try:
        stored = read(home, manifest.release)
    except AgentError:
        return False
    folder = home.release(manifest.release)
    links = (os.path.join(folder, name) for name in manifest.files)
    return stored.document == manifest.document and all(map(_is_link_to_a_file, links))


def _is_link_to_a_file(path: str) -> bool:
    return os.path.islink(path) and os.path.isfile(path)


def read(home: Home, release: str) -> Manifest:
    """Return a release's manifest.

    Raises:
        AgentError: EQ509, the release is not on the device; EQ505, its manifest was altered.
    """
    try:
        document = files.read_json(os.path.join(home.release(release), MANIFEST_FILE))
        if not isinstance(document, dict) or document.get("schema") != wire.MANIFEST_SCHEMA:
            raise ValueError("no manifest")
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        damaged = isinstance(error, ValueError)
        raise AgentError(
            BLOB_MISSING,
            "release " + release[:12],
            "its manifest on the device is damaged" if damaged else "not on the device",
            hint="run `edgeq status` to see what is there, or `edgeq deploy BUNDLE --to DEVICE` to send it",
        ) from error
    return manifests.parse(document, release)


def current(home: Home, model: str) -> str | None:
    """Return the id of the release that serves, or None."""
    try:
        return os.path.basename(os.readlink(os.path.join(home.model(model), "current")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.EINVAL:  # not a link
            return None
        raise


def point(home: Home, model: str, release: str | None) -> None:
    """Let `release` serve: the single atomic step that changes what the device runs."""
    link = os.path.join(home.model(model), "current")
    if release is None:
        files.remove(link)
        disk.sync_folder(home.model(model))
    else:
        files.replace_link(link, os.path.join("..", "..", "releases", release))


def need_current(home: Home, model: str) -> str:
    """Return the id of the release that serves.

    Raises:
        AgentError: EQ510, no release of this model serves here.
    """
    release = current(home, model)
    if release is None:
        models = home.model_names()
        known = ", ".join(name for name in models if current(home, name))
        raise AgentError(
            UNKNOWN_MODEL,
            model,
            "no release of it serves on this device",
            expected="one of " + known if known else None,
            hint="run `edgeq deploy BUNDLE --to DEVICE` for it first",
        )
    return release


def damaged(home: Home, releases: Iterable[str]) -> list[str]:
    """Return those releases of which a file is missing, cannot be read or has another size."""
    return [release for release in releases if _is_damaged(home, release)]


def _is_damaged(home: Home, release: str) -> bool:
    try:
        check_files(home, read(home, release))
    except AgentError:
        return True
    return False


def of_model(home: Home, model: str) -> list[str]:
    """Return the ids of all undamaged releases of a model on the device."""
    releases = []
    for release in sorted(os.listdir(home.releases)):
        try:
            document = files.read_json(os.path.join(home.release(release), MANIFEST_FILE))
        except (OSError, ValueError):
            continue
        if isinstance(document, dict) and document.get("model") == model:
            releases.append(release)
    return releases
