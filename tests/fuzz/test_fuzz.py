"""Any input of a reader of foreign input gives a value or a documented error, in bounded time and memory.

The examples are the same in every run (`derandomize`). The slow tests take many more of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.agent.http.in_process import InProcess, serving_here
from tests.fuzz.targets import HEAD, TARGETS, Target, status_of

LONGEST_S = 5.0
# The inputs are the same in each run; more of them than usual find more: EDGEQ_FUZZ_EXAMPLES=5000.
QUICK, LONG = 60, int(os.environ.get("EDGEQ_FUZZ_EXAMPLES", "400"))
# One server and one warm reader serve all examples.
COMMON: dict[str, Any] = {
    "deadline": None, "derandomize": True, "database": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture,
                              HealthCheck.data_too_large, HealthCheck.large_base_example],
}  # fmt: skip
ODD_TEXTS = ["", "\0", "\x1b]0;x\x07", "\u202e", "a" * 3_000, "../x", "\N{SNOWMAN}", "-1", "1e999", "NaN"]
ODD_NUMBERS = [0, -1, 1, 2**31, 2**53, 2**63, 2**64, -(2**63), 10**30, 0.5, -0.0, 1e308, 1e-320, float("nan")]
VALUES = st.recursive(
    st.none() | st.booleans() | st.sampled_from(ODD_NUMBERS) | st.sampled_from(ODD_TEXTS)
    | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
EDIT = st.tuples(
    st.sampled_from(["flip", "set", "cut", "insert", "repeat", "swap"]),
    st.integers(0, 1 << 20),
    st.integers(0, 255),
    st.integers(1, 400),
)


def edited(data: bytes, edits: list[tuple[str, int, int, int]]) -> bytes:
    """Return bytes with each edit done: flip, set, cut, insert, repeat or swap."""
    changed = bytearray(data)
    for kind, at, value, length in edits:
        position = at % (len(changed) + 1)
        part = changed[position : position + length]
        if kind in ("flip", "set") and part:
            changed[position] = changed[position] ^ (value or 1) if kind == "flip" else value
        elif kind == "cut":
            del changed[position : position + length]
        elif kind == "insert":
            changed[position:position] = bytes([value]) * length
        elif kind == "repeat":
            changed[position:position] = part * 3
        elif kind == "swap":
            changed = changed[position:] + changed[:position]
    return bytes(changed)


def replaced(document: Any, choice: int, value: Any) -> Any:
    """Return a JSON value in which one value, the choice-th of all, is another one or missing."""
    places = list(_places(document))
    if not places:
        return value
    copy = json.loads(json.dumps(document))
    *path, last = places[choice % len(places)]
    parent = copy
    for step in path:
        parent = parent[step]
    if value == "remove":
        del parent[last]
    else:
        parent[last] = value
    return copy


def _places(document: Any) -> Iterator[tuple[Any, ...]]:
    items = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in items:
        yield (key,)
        if isinstance(value, (dict, list)):
            yield from ((key, *inner) for inner in _places(value))


def inputs(target: Target) -> st.SearchStrategy[bytes]:
    """Return inputs of a reader: damaged good ones, and, for JSON, good ones with other values in them."""
    examples = st.sampled_from(target.examples())
    damaged = st.builds(edited, examples, st.lists(EDIT, min_size=1, max_size=4))
    if not target.is_json:
        return damaged | st.binary(max_size=400)

    def with_values(line: bytes, choices: list[tuple[int, Any]]) -> bytes:
        *before, last = line.splitlines()
        try:
            document = json.loads(last)
        except ValueError:  # binary data follows
            return line
        for choice, value in choices:
            if isinstance(document, (dict, list)):
                document = replaced(document, choice, value)
        return b"\n".join([*before, json.dumps(document).encode()])

    choices = st.tuples(st.integers(0, 10_000), VALUES | st.just("remove"))
    return (
        damaged
        | st.builds(with_values, examples, st.lists(choices, min_size=1, max_size=3))
        | st.builds(lambda value: json.dumps(value).encode(), VALUES)
        | st.builds(
            lambda opening, depth: opening * depth, st.sampled_from([b"[", b'{"a":']), st.integers(1, 5_000)
        )
    )


def check(target: Target, data: bytes) -> None:
    """Read one input; anything but a value or a documented error fails."""
    began = time.monotonic()
    with contextlib.suppress(*target.errors):
        target.read(data)
    assert time.monotonic() - began < LONGEST_S


@pytest.mark.parametrize("name", TARGETS)
def test_the_examples_are_good(name: str) -> None:
    for example in TARGETS[name].examples():
        with contextlib.suppress(*(TARGETS[name].errors if b"EQ510" in example else ())):
            TARGETS[name].read(example)


@pytest.mark.parametrize("name", [name for name in TARGETS if TARGETS[name].everyday])
def test_any_input_gives_a_value_or_a_documented_error(name: str) -> None:
    fuzz(TARGETS[name], QUICK)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", TARGETS)
def test_many_inputs_give_a_value_or_a_documented_error(name: str) -> None:
    fuzz(TARGETS[name], LONG)


def fuzz(target: Target, examples: int) -> None:
    """Read many inputs, and measure the memory of all of them."""

    @settings(max_examples=examples, **COMMON)
    @given(inputs(target))
    def run(data: bytes) -> None:
        check(target, data)

    run()


@pytest.mark.first_is_quick
@pytest.mark.parametrize("name", TARGETS)
def test_the_memory_is_bounded(name: str) -> None:
    target = TARGETS[name]
    for example in target.examples():  # what is imported and cached once does not count
        with contextlib.suppress(*target.errors):
            target.read(example)
    hostile = [
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'"' + b"a" * 200_000,
        b"9" * 200_000,
        b"PK\x05\x06" * 9_000,
    ]
    for data in [*hostile, *(example + part for example in target.examples() for part in hostile)]:
        tracemalloc.start()
        with contextlib.suppress(*target.errors):
            target.read(data)
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak_bytes < target.largest_bytes


@pytest.fixture(scope="module")
def here() -> Iterator[InProcess]:
    with serving_here() as server:
        yield server


STATUSES = {200, 400, 401, 403, 404, 405, 411, 413, 414, 415, 417, 431, 501, 505}


def over_the_socket(server: InProcess, examples: int) -> None:
    """Send many byte strings to a real server: it responds as documented or disconnects, and goes on."""

    @settings(max_examples=examples, **COMMON)
    @given(st.builds(edited, st.just(HEAD), st.lists(EDIT, min_size=1, max_size=4)) | st.binary(max_size=300))
    def run(data: bytes) -> None:
        assert status_of(server, data) in STATUSES | {None}

    run()
    assert server.ask("GET", "/v2/health/ready")[0] == 200


def test_any_bytes_give_the_server_a_documented_status(
    here: InProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    over_the_socket(here, QUICK)
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_many_bytes_give_the_server_a_documented_status(
    here: InProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    over_the_socket(here, LONG)
    assert "Traceback" not in capsys.readouterr().err
