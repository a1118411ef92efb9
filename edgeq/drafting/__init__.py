"""Draft a blueprint for a model and its data, and compare a blueprint with them.

from edgeq.drafting import draft_blueprint
draft_blueprint(Path("model.keras"), data=Path("all.npz")).write()
"""

from __future__ import annotations

from edgeq.drafting.compose import draft_blueprint
from edgeq.drafting.draft import Draft, require_free
from edgeq.drafting.findings import Findings, examine_blueprint

__all__ = ["Draft", "Findings", "draft_blueprint", "examine_blueprint", "require_free"]
