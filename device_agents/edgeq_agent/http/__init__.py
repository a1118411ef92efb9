"""A model over HTTP: `edgeq-agent serve`, the Open Inference Protocol on loopback or a unix socket."""

from __future__ import annotations
