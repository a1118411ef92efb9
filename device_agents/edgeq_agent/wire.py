"""The wire format between edgeq and its agent: one JSON object for each line; standard library only.

A call is `agent.pyz VERB` with one JSON line on standard input, the request. Where the verb takes a payload,
exactly `payload_bytes` raw bytes follow. The response is JSON lines on standard output:

    {"event": "hello", "protocol": 1, "agent": "0.1.0"}
    {"event": "progress", "step": "verified", ...}         any number
    {"event": "window", "window": {...}}                   any number, `telemetry` only
    {"event": "result", "result": {...}}                   exactly one, last; or
    {"event": "error", "error": {"code", "subject", ...}}  exactly one, last

`upload` is a conversation. The request offers blobs, and frames follow it: `frame_header` and the bytes of a
chunk, compressed or not. An empty `DONE` frame ends a blob. The agent sends a progress message `wanted`: for
each blob null when the device has it, else the SHA-256 of each chunk that an earlier upload left there. The
host need not wait for this message; after it, the host skips the chunks that are there.

With `--mark TEXT`, the text precedes each line, so that the host tells it from other output. Empty lines
before the request are skipped.

Readers ignore unknown fields and unknown events, and refuse an unknown protocol number.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
import sys
from typing import Any, Dict, Iterable, Tuple

PROTOCOL = 1
MANIFEST_SCHEMA = "edgeq.manifest/1"
REFERENCE_SCHEMA = "edgeq.reference/1"
BENCH_SCHEMA = "edgeq.bench/1"
NATIVE_BENCH_SCHEMA = "edgeq.native-bench/1"
TRUST_CHANGE_SCHEMA = "edgeq.trust-change/1"
TRUST_DOCUMENT_SCHEMA = "edgeq.trust-document/1"

# The type is a part of what is signed, so a signature for one kind of document does not match the other.
RELEASE_TYPE = "application/vnd.edgeq.release.v1+json"
TRUST_CHANGE_TYPE = "application/vnd.edgeq.trust-change.v1+json"
TRUST_DOCUMENT_TYPE = "application/vnd.edgeq.trust-document.v1+json"
# Every JSON reader can represent integers up to here exactly.
LARGEST_COUNTER = 2**53 - 1

# Every verb, with the function in `edgeq_agent.verbs` that answers it (the host needs the names alone).
VERBS = {
    "probe": "probe.probe",
    "missing": "upload.missing",
    "put": "put.put",
    "upload": "upload.upload",
    "runtime": "runtime.runtime",
    "activate": "activate.activate",
    "rollback": "activate.rollback",
    "soak": "recover.end_soak",
    "recover": "recover.recover",
    "pin": "pin.pin",
    "unpin": "pin.unpin",
    "stage": "stage.stage",
    "unstage": "stage.unstage",
    "split": "split.split",
    "prune": "prune.prune",
    "status": "status.status",
    "infer": "infer.infer",
    "bench": "bench.bench",
    "telemetry": "telemetry.telemetry",
    "trust": "trust.run",
    "service": "service.run",
    "logs": "logs.logs",
}

# The Python modules that run inference. The first two are small and come as wheels; TensorFlow is used only
# where it is installed already, because its import takes seconds.
WHEEL_RUNTIME_MODULES = ("ai_edge_litert", "tflite_runtime")
RUNTIME_MODULES = (*WHEEL_RUNTIME_MODULES, "tensorflow")

# The sizes of chunks that an upload may use. Each chunk costs a hash, and an interrupted one is sent again.
MIN_CHUNK_BYTES = 4 * 1024
MAX_CHUNK_BYTES = 16 * 1024 * 1024
AS_IT_IS = 0
ZLIB = 1
# Not a chunk: it ends a blob.
DONE = 2
_FRAME = struct.Struct(">BIII")
FRAME_HEADER_BYTES = _FRAME.size

# A reader stops at a longer line instead of filling its memory, and at deeper nesting instead of recursing.
MAX_LINE_BYTES = 64 * 1024 * 1024
MAX_DEPTH = 64
_STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_LONG_NUMBER = re.compile(rb"[0-9]{4301}")
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")

Json = Dict[str, Any]


class WireError(Exception):
    """A line that does not follow this format; the message shows it."""


def canonical(value: Any) -> bytes:
    """Return the canonical bytes of a JSON value: sorted keys, no spaces, UTF-8."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode("utf-8")


def digest(value: Any) -> str:
    """Return the SHA-256 (hex) of a JSON value's canonical bytes; a release's id is its manifest's digest."""
    return hashlib.sha256(canonical(value)).hexdigest()


def signed_bytes(payload_type: str, value: Any) -> bytes:
    """Return the bytes that a signature of a JSON value covers: DSSE's pre-authentication encoding.

    `DSSEv1 <length of type> <type> <length of body> <body>`, with single spaces and lengths in decimal ASCII;
    the body is the value's canonical bytes.
    """
    kind, body = payload_type.encode("utf-8"), canonical(value)
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(body), body)


def key_id(public_key: bytes) -> str:
    """Return a key's id: the first 16 hex digits of the SHA-256 of its 32 bytes."""
    return hashlib.sha256(public_key).hexdigest()[:16]


def dump(message: Json) -> bytes:
    """Return a message as one line, newline included."""
    return canonical(message) + b"\n"


def parse(line: bytes) -> Json:
    """Return the message of one line.

    Raises:
        WireError: the line is too long, nested too deep, not JSON, or not an object with a text `event`.
    """
    message = parse_json(line)
    if not isinstance(message, dict) or not isinstance(message.get("event"), str):
        raise WireError(f"not a message: {line[:120]!r}")
    return message


def parse_json(line: bytes) -> Any:
    """Return the JSON value of a line, within the limits of size and depth; its numbers are finite.

    Raises:
        WireError: the line is too long, nested too deep, or not JSON.
    """
    if len(line) > MAX_LINE_BYTES:
        raise WireError(f"a line of {len(line)} bytes, the limit is {MAX_LINE_BYTES}")
    # A line with few brackets cannot be deep, however long it is.
    if line.count(b"[") + line.count(b"{") > MAX_DEPTH and _depth(line) > MAX_DEPTH:
        raise WireError(f"not a JSON line: nested deeper than {MAX_DEPTH} levels")
    if has_long_number(line):
        raise WireError("not a JSON line: a number of more than 4300 digits")
    try:
        return json.loads(line.decode("utf-8"), parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise WireError(f"not a JSON line: {line[:120]!r}") from error


def has_long_number(data: bytes) -> bool:
    """Return whether JSON has a number whose conversion would take this Python minutes.

    Pythons since 2022 refuse such a number themselves, unless a setting forbids that.
    """
    limited = getattr(sys, "get_int_max_str_digits", int)()
    return not limited and _LONG_NUMBER.search(data) is not None


def _depth(line: bytes) -> int:
    depth = deepest = 0
    for bracket in _STRINGS.sub(b"", line).translate(None, _NO_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _finite(text: str) -> float:
    # Python's parser accepts NaN and 1e999, which `dump` never writes and no reader can use.
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text + " is not a finite number")
    return value


def hello(agent_version: str) -> Json:
    """Return the first message of every response."""
    return {"event": "hello", "protocol": PROTOCOL, "agent": agent_version}


def progress(step: str, **details: Any) -> Json:
    """Return a message that reports a step that was reached."""
    return dict(details, event="progress", step=step)


def window(body: Json) -> Json:
    """Return a message that carries one telemetry window."""
    return {"event": "window", "window": body}


def result(body: Json) -> Json:
    """Return the last message of a response that succeeded."""
    return {"event": "result", "result": body}


def error(
    code: str,
    subject: str,
    problem: str = "",
    expected: str | None = None,
    got: str | None = None,
    hint: str | None = None,
    transient: bool = False,
) -> Json:
    """Return the last message of a response that failed."""
    body = {
        "code": code,
        "subject": subject,
        "problem": problem,
        "expected": expected,
        "got": got,
        "hint": hint,
        "transient": transient,
    }
    return {"event": "error", "error": body}


def frame_header(packing: int, blob: int, chunk: int, size_bytes: int) -> bytes:
    """Return the header of a chunk: its packing, the index of its blob, its own index, and its size."""
    return _FRAME.pack(packing, blob, chunk, size_bytes)


def parse_frame_header(data: bytes | bytearray) -> Tuple[int, int, int, int]:
    """Return (packing, index of the blob, index of the chunk, size in bytes)."""
    packing, blob, chunk, size_bytes = _FRAME.unpack(data)
    return packing, blob, chunk, size_bytes


def check_hello(message: Json) -> None:
    """Refuse a response that does not begin with a hello of this protocol.

    Raises:
        WireError: it begins with another message, or uses another protocol.
    """
    if message.get("event") != "hello":
        raise WireError(f"the response begins with {message.get('event')!r} instead of a hello")
    if message.get("protocol") != PROTOCOL:
        raise WireError(f"protocol {message.get('protocol')!r}; this side uses {PROTOCOL}")


def split_lines(chunks: Iterable[bytes]) -> Iterable[bytes]:
    """Yield the lines of a byte stream that arrives in pieces; the last one may lack its newline."""
    rest: list[bytes] = []
    for chunk in chunks:
        while True:
            head, newline, chunk = chunk.partition(b"\n")
            if not newline:
                rest.append(head)
                break
            rest.append(head)
            yield b"".join(rest)
            rest = []
        if sum(map(len, rest)) > MAX_LINE_BYTES:
            raise WireError(f"a line over {MAX_LINE_BYTES} bytes")
    last = b"".join(rest)
    if last:
        yield last
