"""The registry: every kind has a platform, and the host's kinds are the agent's."""

from __future__ import annotations

import json

import edgeq
from edgeq_agent.platforms.linux import Linux
from edgeq_agent.platforms.registry import PLATFORMS, DeviceKind


def test_every_kind_has_a_platform_and_linux_is_tried_last() -> None:
    assert set(PLATFORMS) == set(DeviceKind)
    assert list(PLATFORMS)[-1] is DeviceKind.LINUX
    assert [kind for kind, platform in PLATFORMS.items() if platform.matches is Linux.matches] == ["linux"]


def test_the_hosts_kinds_are_the_agents() -> None:
    assert edgeq.DeviceKind is DeviceKind


def test_a_kind_reads_as_its_name() -> None:
    assert f"{DeviceKind.CORAL} {DeviceKind.CORAL:>6}" == "coral  coral"
    assert str(DeviceKind.RASPBERRY_PI) == "raspberry-pi"
    assert json.dumps({"kind": DeviceKind.LINUX}) == '{"kind": "linux"}'
