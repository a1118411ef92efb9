"""Releases on disk: manifests, the links that name them, and what the device keeps."""

from __future__ import annotations
