"""Models over HTTP: the Open Inference Protocol on loopback or a unix socket (`edgeq-agent serve`)."""

from __future__ import annotations
