"""The bundle as a file: a zip that comes out the same byte for byte, checked whole before it is used."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.bundle.manifest import Manifest, parse_manifest, release_of
from edgeq.errors import BundleAltered, BundleError
from edgeq.files import write_atomic
from edgeq_agent import wire

MANIFEST = "manifest.json"
FOLDER = "files/"
# The earliest time that a zip can carry: a bundle says nothing about when it was made.
EPOCH = (1980, 1, 1, 0, 0, 0)
# What a bundle may unpack to. A zip of zeros would otherwise fill the memory of whoever opens it.
LARGEST_BYTES = 2 * 1024**3


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobRef:
    """One file of the bundle as a content-addressed blob."""

    name: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A checked bundle.

    Attributes:
        manifest: the document as it travels; its digest is the release.
        parsed: the same, typed.
        contents: by SHA-256, the bytes.
    """

    manifest: Mapping[str, Any]
    parsed: Manifest
    release: str
    contents: Mapping[str, bytes]

    @property
    def model(self) -> str:
        """Return the name under which devices serve it."""
        return self.parsed.model

    @property
    def blobs(self) -> Mapping[str, BlobRef]:
        """Return the bundle's files by SHA-256."""
        return {
            entry.sha256: BlobRef(name=name, sha256=entry.sha256, size_bytes=entry.size_bytes)
            for name, entry in self.parsed.files.items()
        }

    @property
    def size_bytes(self) -> int:
        """Return the size of its files."""
        return sum(entry.size_bytes for entry in self.parsed.files.values())

    def read(self, sha256: str) -> bytes:
        """Return one blob."""
        return self.contents[sha256]

    @property
    def reference(self) -> dict[str, Any]:
        """Return the drift reference."""
        document: dict[str, Any] = json.loads(self.open(self.parsed.reference.file))
        return document

    def open(self, name: str) -> bytes:
        """Return one file by its name."""
        return self.contents[self.parsed.files[name].sha256]


def entry_of(data: bytes) -> dict[str, Any]:
    """Return a manifest's entry for a file."""
    return {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}


def write_bundle(path: Path, manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> Bundle:
    """Write a bundle and return it as read back: what does not read back is not written.

    The same manifest and files give the same bytes on every machine.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        _add(archive, MANIFEST, wire.canonical(dict(manifest)))
        for name in sorted(files):
            _add(archive, FOLDER + name, files[name])
    data = buffer.getvalue()
    bundle = parse_bundle(data, subject=str(path))
    write_atomic(path, data)
    return bundle


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name, date_time=EPOCH)
    info.external_attr = 0o644 << 16
    info.create_system = 3
    # Stored, not deflated: zlib's output differs between its versions, and the digest would with it.
    info.compress_type = zipfile.ZIP_STORED
    archive.writestr(info, data)


def read_bundle(path: Path) -> Bundle:
    """Read and check a bundle.

    Raises:
        BundleError: no file, no zip, no manifest, or more in it than a bundle may hold.
        BundleAltered: a file's bytes are not what the manifest says.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        hint = "make one with `edgeq bundle`"
        raise BundleError(str(path), error.strerror or "cannot be read", hint=hint) from error
    return parse_bundle(data, subject=str(path))


def parse_bundle(data: bytes, *, subject: str) -> Bundle:
    """Check a bundle's bytes; raises as `read_bundle`."""
    hint = "make it again with `edgeq bundle`"
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            total = sum(info.file_size for info in archive.infolist())
            if total > LARGEST_BYTES:
                raise BundleError(subject, expected=f"at most {LARGEST_BYTES} bytes unpacked", got=f"{total}")
            members = {info.filename: archive.read(info) for info in archive.infolist()}
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError) as error:
        what = "expected a bundle (.eqb), got something else or a part of one"
        raise BundleError(subject, f"{what}: {error}", hint=hint) from error
    if MANIFEST not in members:
        raise BundleError(subject, expected=f"a bundle with {MANIFEST}", got="a zip without it", hint=hint)
    try:
        document = json.loads(members.pop(MANIFEST))
    except ValueError as error:
        raise BundleError(subject, f"its {MANIFEST} is no JSON", hint=hint) from error
    parsed = parse_manifest(document, subject=subject)
    stated = {FOLDER + name: entry for name, entry in parsed.files.items()}
    if set(stated) != set(members):
        odd = sorted(set(stated) ^ set(members))
        raise BundleAltered(
            subject, expected="the files that its manifest lists", got=", ".join(odd), hint=hint
        )
    contents = {}
    for name, entry in stated.items():
        digest = hashlib.sha256(members[name]).hexdigest()
        if digest != entry.sha256 or len(members[name]) != entry.size_bytes:
            raise BundleAltered(f"{subject}: {name}", expected=entry.sha256[:12], got=digest[:12], hint=hint)
        contents[digest] = members[name]
    return Bundle(manifest=document, parsed=parsed, release=release_of(document), contents=contents)
