"""Sensor readings: the measures that a device has, and its state before and after a benchmark."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, NamedTuple

from edgeq_agent.platforms.base import Platform, Reading, Throttling
from edgeq_agent.wire import Json


@dataclass(frozen=True)
class Environment:
    """The device's state at one moment; it shows whether a benchmark was disturbed."""

    temperature_c: Reading[float]
    frequency_hz: Reading[int]
    governor: Reading[str]
    throttling: Reading[Throttling]
    load_1min: Reading[float]
    cpu_pressure_us: Reading[int]

    def to_json(self) -> Json:
        """Return {measure: value or null, "absent": {measure: reason}}."""
        readings: dict[str, Reading[Any]] = dict(vars(self))
        values: Json = {name: reading.value for name, reading in readings.items()}
        if self.throttling.value is not None:
            values["throttling"] = self.throttling.value.to_json()
        absent = {name: reading.reason for name, reading in readings.items() if reading.value is None}
        return dict(values, absent=absent)

    def disturbances_since(self, before: Environment) -> list[str]:
        """Return why a run between the two moments does not count: the processor was throttled."""
        first = before.throttling.value or Throttling()
        last = self.throttling.value or Throttling()
        reasons = []
        active = sorted({*first.now, *last.now})
        if active:
            reasons.append("throttled: " + ", ".join(active))
        started = sorted(set(last.since_boot) - set(first.since_boot))
        if started:
            reasons.append("throttled during the run: " + ", ".join(started))
        times = (last.count or 0) - (first.count or 0)
        if times > 0:
            reasons.append(f"the processor throttled {times} times")
        return reasons


def environment(platform: Platform) -> Environment:
    """Read the device's state now."""
    return Environment(
        temperature_c=platform.temperature_c(),
        frequency_hz=platform.frequency_hz(),
        governor=platform.governor(),
        throttling=platform.throttling(),
        load_1min=platform.load_1min(),
        cpu_pressure_us=platform.cpu_pressure_us(),
    )


class Availability(NamedTuple):
    """Whether the device has a measure.

    Attributes:
        source: what it is read from; None when it is missing.
        reason: why it is missing; None when it is not.
    """

    source: str | None
    reason: str | None

    def to_json(self) -> Json:
        """Return it as the verb `probe` reports it."""
        if self.source is None:
            return {"available": False, "reason": self.reason}
        return {"available": True, "source": self.source}


def availability(platform: Platform) -> dict[str, Availability]:
    """Return by its name whether the device has a measure."""
    readings: Mapping[str, Reading[Any]] = {
        "latency": Reading(1, "time.perf_counter_ns around one invocation"),
        "memory": platform.peak_memory_bytes(),
        "temperature": platform.temperature_c(),
        "frequency": platform.frequency_hz(),
        "governor": platform.governor(),
        "throttling": platform.throttling(),
        "energy": platform.energy_source(),
    }
    return {
        name: Availability(reading.source, None)
        if reading.value is not None
        else Availability(None, reading.reason)
        for name, reading in readings.items()
    }
