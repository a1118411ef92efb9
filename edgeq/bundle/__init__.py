"""The bundle: a model with its golden samples, its limits and its drift reference, signed."""

from __future__ import annotations

from edgeq.bundle.archive import BlobRef, Bundle, read_bundle
from edgeq.bundle.make import make_bundle
from edgeq.bundle.manifest import Manifest

__all__ = ["BlobRef", "Bundle", "Manifest", "make_bundle", "read_bundle"]
