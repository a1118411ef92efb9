"""What the fleet needs of a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class BlobInfo(Protocol):
    """One content of a bundle: its name there and its size."""

    @property
    def name(self) -> str: ...
    @property
    def size_bytes(self) -> int: ...


class DeployableBundle(Protocol):
    """A bundle as `edgeq.bundle` reads it.

    Attributes:
        manifest: as in the agent's `activate`.
        release: the manifest's digest.
        blobs: the contents by SHA-256.
        signatures: over the manifest, as in the agent's `activate`.
    """

    @property
    def manifest(self) -> Mapping[str, Any]: ...
    @property
    def release(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def blobs(self) -> Mapping[str, BlobInfo]: ...
    @property
    def signatures(self) -> Sequence[Mapping[str, str]]: ...

    def read(self, sha256: str) -> bytes:
        """Return one content, verified."""
