"""Releases on disk: manifests, the links that name them, and those that the device keeps."""

from __future__ import annotations
