"""Content-addressed blobs and the uploads that bring them."""

from __future__ import annotations
