"""The bundle as a file: a reproducible zip, verified completely before it is used."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgeq.bundle.drift_reference import DriftReference, parse_reference
from edgeq.bundle.keys import SigningKey
from edgeq.bundle.manifest import Manifest, parse_manifest, release_of
from edgeq.bundle.provenance_check import Provenance, parse_provenance
from edgeq.bundle.signatures import Signature, from_document, sign, to_document
from edgeq.bundle.zip_members import Member, members, unpack
from edgeq.errors import BundleAltered, BundleError, UsageError
from edgeq.files import write_atomic
from edgeq_agent import wire

MANIFEST = "manifest.json"
SIGNATURES = "signatures.json"
FOLDER = "files/"
# The earliest time that a zip can hold; a fixed time makes the bytes reproducible.
EPOCH = (1980, 1, 1, 0, 0, 0)
# The largest unpacked size. A zip of zeros would otherwise fill the reader's memory.
LARGEST_BYTES = 2 * 1024**3
# In addition to the content there are names and headers; members are stored, not deflated.
LARGEST_FILE_BYTES = LARGEST_BYTES + 16 * 1024**2
# The manifest, the signatures and the drift reference: parsed as JSON, which takes many times their size.
LARGEST_DOCUMENT_BYTES = 16 * 1024**2

# edgetpu_compiler replaces all operations that it compiles with this custom operation.
_EDGETPU_OPERATION = b"edgetpu-custom-op"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobRef:
    """One file of the bundle as a content-addressed blob."""

    name: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A verified bundle.

    Attributes:
        manifest: the document as it is sent; its digest is the release.
        parsed: the same as a typed value.
        reference: the drift reference.
        contents: the bytes by SHA-256.
        provenance: what its model was made of; None in bundles from before it was recorded.
        signed_by: its signatures; each is valid for the manifest. Whether its key is trusted is not checked.
        path: the file that it was read from or written to.
    """

    manifest: Mapping[str, Any]
    parsed: Manifest
    release: str
    reference: DriftReference
    contents: Mapping[str, bytes] = field(repr=False)
    provenance: Provenance | None = None
    signed_by: tuple[Signature, ...] = ()
    path: Path | None = field(default=None, compare=False)

    @property
    def signatures(self) -> Sequence[Mapping[str, str]]:
        """The signatures in the format of the agent's `activate`."""
        return [signature.to_request() for signature in self.signed_by]

    @property
    def model(self) -> str:
        """The name under which devices serve it."""
        return self.parsed.model

    @property
    def needs_edgetpu(self) -> bool:
        """Whether only an Edge TPU can run its model: the file was compiled for one, and is the only one."""
        return self.parsed.fallback is None and _EDGETPU_OPERATION in self.open("model.tflite")

    @property
    def blobs(self) -> Mapping[str, BlobRef]:
        """The bundle's files by SHA-256."""
        return {
            entry.sha256: BlobRef(name=name, sha256=entry.sha256, size_bytes=entry.size_bytes)
            for name, entry in self.parsed.files.items()
        }

    @property
    def size_bytes(self) -> int:
        """The size of its files."""
        return sum(entry.size_bytes for entry in self.parsed.files.values())

    def read(self, sha256: str) -> bytes:
        """Return one blob."""
        return self.contents[sha256]

    def open(self, name: str) -> bytes:
        """Return one file by its name."""
        return self.contents[self.parsed.files[name].sha256]


def entry_of(data: bytes) -> dict[str, Any]:
    """Return the entry of a file in a manifest."""
    return {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}


def write_bundle(
    path: Path, manifest: Mapping[str, Any], files: Mapping[str, bytes], *, keys: Sequence[SigningKey] = ()
) -> Bundle:
    """Write a bundle and return it as read back; a bundle that cannot be read back is not written.

    The same manifest, files and keys give the same bytes on every machine.

    Args:
        keys: sign it with these; devices accept only releases with a trusted signature.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        _add(archive, MANIFEST, wire.canonical(dict(manifest)))
        if keys:
            _add(archive, SIGNATURES, to_document(sign(manifest, keys)))
        for name in sorted(files):
            _add(archive, FOLDER + name, files[name])
    data = buffer.getvalue()
    bundle = parse_bundle(data, subject=str(path))
    write_atomic(path, data)
    return replace(bundle, path=path)


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name, date_time=EPOCH)
    info.external_attr = 0o644 << 16
    info.create_system = 3
    # Stored, not deflated: zlib's output differs between versions, and so would the digest.
    info.compress_type = zipfile.ZIP_STORED
    archive.writestr(info, data)


def read_bundle(path: Path) -> Bundle:
    """Read and check a bundle.

    Raises:
        BundleError: the file is missing, is not a bundle, or is too large.
        BundleAltered: a file differs from its digest in the manifest.
    """
    return replace(parse_bundle(_read(path), subject=str(path)), path=path)


def bytes_of(path: Path, bundle: Bundle) -> bytes:
    """Return the bytes of the file that a bundle was read from.

    Raises:
        UsageError: the file holds another release by now.
        BundleError, BundleAltered: as `read_bundle`.
    """
    data = _read(path)
    if parse_bundle(data, subject=str(path)).release != bundle.release:
        raise UsageError(str(path), "was replaced while it was read", hint="run the same command again")
    return data


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            # Read a bounded amount: a device file has no size and may have no end.
            data = stream.read(LARGEST_FILE_BYTES + 1)
    except OSError as error:
        hint = "create one with `edgeq bundle`"
        raise BundleError(str(path), error.strerror or "cannot be read", hint=hint) from error
    if len(data) > LARGEST_FILE_BYTES:
        raise BundleError(str(path), expected=f"at most {LARGEST_FILE_BYTES} bytes", got="more")
    return data


def resigned(bundle: Bundle, path: Path, *, counter: int, keys: Sequence[SigningKey]) -> Bundle:
    """Write the same content as a release with another counter, and return it."""
    manifest = {**bundle.manifest, "counter": counter}
    files = {name: bundle.open(name) for name in bundle.parsed.files}
    return write_bundle(path, manifest, files, keys=keys)


def parse_bundle(data: bytes, *, subject: str) -> Bundle:
    """Parse and verify a bundle's bytes; raises as `read_bundle`."""
    hint = "create it again with `edgeq bundle`"
    entries = dict(members(data, subject=subject, largest_bytes=LARGEST_BYTES))
    if MANIFEST not in entries:
        raise BundleError(subject, expected=f"a bundle with {MANIFEST}", got="a zip without it", hint=hint)
    document = _document(_small(data, entries.pop(MANIFEST), subject), subject)
    signatures = entries.pop(SIGNATURES, None)
    parsed = parse_manifest(document, subject=subject)
    stated = {FOLDER + name: entry for name, entry in parsed.files.items()}
    if set(stated) != set(entries):
        odd = sorted(set(stated) ^ set(entries))
        raise BundleAltered(
            subject, expected="the files that its manifest lists", got=", ".join(odd)[:300], hint=hint
        )
    contents = {}
    provenance = parsed.provenance
    documents = () if provenance is None else (provenance.sbom, provenance.statement)
    for name, entry in stated.items():
        member = entries[name]
        if name.removeprefix(FOLDER) in (parsed.reference.file, *documents):
            _check_document(member, subject)
        # Compared before it is unpacked, so that no more is unpacked than the manifest promises.
        if member.size_bytes != entry.size_bytes:
            size = f"{member.size_bytes} bytes"
            raise BundleAltered(
                f"{subject}: {name}", expected=f"{entry.size_bytes} bytes", got=size, hint=hint
            )
        content = unpack(data, member, subject=subject)
        digest = hashlib.sha256(content).hexdigest()
        if digest != entry.sha256:
            raise BundleAltered(f"{subject}: {name}", expected=entry.sha256[:12], got=digest[:12], hint=hint)
        contents[digest] = content
    return Bundle(
        manifest=document,
        parsed=parsed,
        release=release_of(document),
        reference=parse_reference(contents[stated[FOLDER + parsed.reference.file].sha256], subject=subject),
        contents=contents,
        provenance=None
        if provenance is None
        else parse_provenance(
            contents[parsed.files[provenance.sbom].sha256],
            contents[parsed.files[provenance.statement].sha256],
            digests={name: entry.sha256 for name, entry in parsed.files.items()},
            subject=subject,
        ),
        signed_by=(
            ()
            if signatures is None
            else from_document(_small(data, signatures, subject), document, subject=subject)
        ),
    )


def _small(data: bytes, member: Member, subject: str) -> bytes:
    """Return a document of the bundle."""
    _check_document(member, subject)
    return unpack(data, member, subject=subject)


def _check_document(member: Member, subject: str) -> None:
    """Refuse a document that is too large to be parsed, before it is unpacked."""
    if member.size_bytes > LARGEST_DOCUMENT_BYTES:
        raise BundleError(
            f"{subject}: {member.name}",
            expected=f"at most {LARGEST_DOCUMENT_BYTES} bytes",
            got=f"{member.size_bytes}",
        )


def _document(data: bytes, subject: str) -> Any:
    """Return the manifest, whose bytes must be in canonical form so that all readers agree on it."""
    hint = "create it again with `edgeq bundle`"
    try:
        document = json.loads(data)
        canonical = wire.canonical(document)
    except (ValueError, RecursionError) as error:
        raise BundleError(subject, f"its {MANIFEST} is not JSON", hint=hint) from error
    if canonical != data:
        problem = f"its {MANIFEST} is not in canonical form: keys out of order or twice, or other spacing"
        raise BundleAltered(subject, problem, hint=hint)
    return document
