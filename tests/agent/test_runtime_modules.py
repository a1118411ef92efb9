"""The runtime modules that the agent can drive are those that host and device have agreed on."""

from __future__ import annotations

from edgeq_agent import wire
from edgeq_agent.inference import runtime_modules


def test_every_agreed_module_can_be_driven() -> None:
    assert runtime_modules.known() == wire.RUNTIME_MODULES


def test_modules_with_wheels_are_preferred() -> None:
    wheels = wire.WHEEL_RUNTIME_MODULES
    assert wire.RUNTIME_MODULES[: len(wheels)] == wheels
    assert "tensorflow" not in wheels
