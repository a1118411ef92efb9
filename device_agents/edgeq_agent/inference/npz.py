"""Read the arrays of an .npz file: plain numbers and texts, as many bytes as their shapes state."""

from __future__ import annotations

import io
import struct
from tokenize import TokenError
from typing import Any

from edgeq_agent.blobs import zip_file
from edgeq_agent.errors import BAD_REQUEST, AgentError

_MAGIC = b"\x93NUMPY"
_SUFFIX = ".npy"
_LONGEST_HEADER_BYTES = 10_000
_MOST_BRACKETS = 90


def open_npz(path: str, subject: str, limit_bytes: int = 2 << 30) -> Any:
    """Return the arrays of an .npz file, by name.

    Raises:
        AgentError: EQ512, it is not an .npz, holds pickled objects, or unpacks to more than `limit_bytes`.
    """
    try:
        with zip_file.opened(path) as archive:
            members = [member for member in archive.infolist() if member.filename.endswith(_SUFFIX)]
            total = sum(member.file_size for member in members)
            if total > limit_bytes:
                raise AgentError(BAD_REQUEST, subject, f"unpacks to {total} bytes")
            return {
                member.filename[: -len(_SUFFIX)]: _array(bytearray().join(zip_file.chunks(archive, member)))
                for member in members
            }
    except (zip_file.ZipDamaged, ValueError) as error:
        problem = "not an .npz of plain arrays: " + " ".join(str(error).split())[:300]
        raise AgentError(BAD_REQUEST, subject, problem) from error


def _array(data: bytearray) -> Any:
    """Return an array over its bytes; the shape is checked against them before memory is taken for it.

    Raises:
        ValueError: it is not a plain array, or its shape states another number of bytes.
    """
    import numpy as np

    shape, is_fortran, dtype, start = _header(data)
    count = 1
    for length in shape:
        count *= length
    if dtype.hasobject or not dtype.itemsize or any(length < 0 for length in shape):
        raise ValueError("an array of objects, or of nothing")
    if count * dtype.itemsize != len(data) - start:
        raise ValueError(f"an array of {count * dtype.itemsize} bytes in {len(data) - start}")
    array = np.ndarray(shape, dtype, data, start, order="F" if is_fortran else "C")
    return array if array.flags.aligned else array.copy()


def _header(data: bytearray) -> tuple[tuple[int, ...], bool, Any, int]:
    """Return (shape, whether the first axis varies fastest, dtype, where the values begin)."""
    from numpy.lib import format as npy

    if data[:6] != _MAGIC or len(data) < 12 or data[6] not in (1, 2):
        raise ValueError("not an array of version 1 or 2")
    layout, read = ("<H", npy.read_array_header_1_0) if data[6] == 1 else ("<I", npy.read_array_header_2_0)
    (size,) = struct.unpack_from(layout, data, 8)
    start = 8 + struct.calcsize(layout) + size
    header = bytes(data[8:start])
    # numpy parses it as Python, whose own parser can fail on what is nested deep.
    is_deep = sum(map(header.count, (b"(", b"[", b"{", b"-"))) > _MOST_BRACKETS
    if size > _LONGEST_HEADER_BYTES or start > len(data) or is_deep:
        raise ValueError("the header of an array is too long")
    try:
        shape, is_fortran, dtype = read(io.BytesIO(header))
    except (
        ValueError,
        TypeError,
        SyntaxError,
        LookupError,
        RecursionError,
        MemoryError,
        TokenError,
    ) as error:
        raise ValueError(f"the header of an array: {error}") from error
    return shape, is_fortran, dtype, start
