"""A model inside an application: what `edgeq_agent.Runtime` is made of."""

from __future__ import annotations
