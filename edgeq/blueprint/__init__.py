"""The blueprint: a model, its data, and the limits that every variant must meet."""

from __future__ import annotations

from edgeq.blueprint.model import Blueprint, Limits, Preference, Scheme
from edgeq.blueprint.parse import load_blueprint

__all__ = ["Blueprint", "Limits", "Preference", "Scheme", "load_blueprint"]
