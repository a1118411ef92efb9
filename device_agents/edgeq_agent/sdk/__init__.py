"""A model inside an application: the parts of `edgeq_agent.Runtime`."""

from __future__ import annotations
