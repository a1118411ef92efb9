"""Parse and format sizes, durations and percentages; everywhere else values are in raw units."""

from __future__ import annotations

import re
from collections.abc import Iterable

from edgeq.errors import UsageError

_BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "min": 60 * 10**9,
    "h": 3600 * 10**9,
}
_NANOJOULES = {"nj": 1, "uj": 10**3, "mj": 10**6, "j": 10**9}
# More fits neither in the store nor in a request to a device.
_LARGEST = float(2**62)
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]+)\s*")


def _pattern(units: Iterable[str]) -> str:
    """Return the JSON Schema pattern of quantities; such patterns have no flag for upper and lower case."""
    names = ("".join(f"[{letter}{letter.upper()}]" for letter in name) for name in units)
    return rf"^\s*\d+(\.\d+)?\s*({'|'.join(names)})\s*$"


SIZE_PATTERN = _pattern(_BYTES)
DURATION_PATTERN = _pattern(_NANOSECONDS)
ENERGY_PATTERN = _pattern(_NANOJOULES)


def _parse(text: str, units: dict[str, int], what: str, example: str) -> int:
    match = _QUANTITY.fullmatch(text)
    factor = units.get(match.group(2).lower()) if match else None
    if match is None or factor is None:
        raise UsageError(
            what,
            expected=f"a number and one of {', '.join(units)}",
            got=repr(text),
            hint=f"for example {example}",
        )
    number = float(match.group(1)) * factor
    if number > _LARGEST:
        raise UsageError(what, expected=f"at most {_LARGEST:.0f} {next(iter(units))}", got=repr(text)[:60])
    return round(number)


def parse_size(text: str, *, subject: str = "size") -> int:
    """Return the bytes of a size such as `512 KiB` or `2MB`.

    Raises:
        UsageError: EQ101; the text is not a number with a unit of size. `subject` names it in the message.
    """
    return _parse(text, _BYTES, subject, "512KiB")


def parse_duration(text: str, *, subject: str = "duration") -> int:
    """Return the nanoseconds of a duration such as `50 ms` or `2s`.

    Raises:
        UsageError: EQ101; the text is not a number with a unit of time. `subject` names it in the message.
    """
    return _parse(text, _NANOSECONDS, subject, "10m")


def parse_energy(text: str, *, subject: str = "energy") -> int:
    """Return the nanojoules of an energy such as `2 mJ` or `350uJ`.

    Raises:
        UsageError: EQ101; the text is not a number with a unit of energy. `subject` names it in the message.
    """
    return _parse(text, _NANOJOULES, subject, "2mJ")


def format_size(size_bytes: float) -> str:
    """Format a size in bytes: `1.5 MiB`."""
    for limit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if abs(size_bytes) >= limit:
            return f"{size_bytes / limit:.1f} {name}"
    return f"{size_bytes:.0f} B"


def format_duration(duration_ns: float) -> str:
    """Format a duration in nanoseconds: `57 us`."""
    for limit, name in ((10**9, "s"), (10**6, "ms"), (10**3, "us")):
        if abs(duration_ns) >= limit:
            return f"{duration_ns / limit:.3g} {name}"
    return f"{duration_ns:.0f} ns"


def format_energy(energy_nj: float) -> str:
    """Format an energy in nanojoules: `1.2 mJ`."""
    for limit, name in ((10**9, "J"), (10**6, "mJ"), (10**3, "uJ")):
        if abs(energy_nj) >= limit:
            return f"{energy_nj / limit:.3g} {name}"
    return f"{energy_nj:.0f} nJ"


def format_age(duration_ns: float) -> str:
    """Format how long ago something was: `40 s`, `12 min`, `3.5 h`, `2.1 days`."""
    seconds = max(0.0, duration_ns / 1e9)
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def format_percent(fraction: float) -> str:
    """Format a fraction as percent: `91.3 %`."""
    return f"{100 * fraction:.1f} %"


def format_percent_ci95(ends: tuple[float, float] | None) -> str:
    """Format a 95 % interval to follow its share: ` (95 %: 85.4 to 95.1 %)`; empty without one."""
    return "" if ends is None else f" (95 %: {100 * ends[0]:.1f} to {format_percent(ends[1])})"


def limit_key(name: str) -> str:
    """Return the blueprint's key of a limit: `latency_p95_max` for `latency_p95_ns_max`.

    The key has no unit, because a blueprint states the unit beside the value.
    """
    return name.replace("_ns_", "_").replace("_bytes_", "_").replace("_nj_", "_")


def format_limit(name: str, limit: float) -> str:
    """Return a blueprint's limit as text; its name (`latency_p95_ns_max`) says the unit."""
    if "_ns_" in name:
        return format_duration(limit)
    if "_bytes_" in name:
        return format_size(limit)
    if "_nj_" in name:
        return format_energy(limit)
    return f"{limit:g} dB" if "_db_" in name else format_percent(limit)
