"""The limits of a blueprint on the device, as they are reported."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.units import format_duration, format_size
from edgeq_agent.activation.health import in_units


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (999, "ns", "999 ns"),
        (1000, "ns", "1 us"),
        (20_318, "ns", "20.32 us"),
        (5_000_000, "ns", "5 ms"),
        (2_500_000_000, "ns", "2.5 s"),
        (1023, "bytes", "1023 bytes"),
        (300 * 2**20, "bytes", "300 MiB"),
    ],
)
def test_a_figure_is_in_the_unit_of_a_blueprint(value: int, unit: str, text: str) -> None:
    assert in_units(value, unit) == text


@given(st.integers(1, 10**13))
def test_the_units_are_those_of_the_host(value: int) -> None:
    assert in_units(value, "ns").split()[1] == format_duration(value).split()[1]
    assert in_units(value, "bytes").split()[1].replace("bytes", "B") == format_size(value).split()[1]
