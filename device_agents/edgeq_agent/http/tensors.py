"""Tensors of the Open Inference Protocol: JSON or the binary extension on the wire, numpy inside."""

from __future__ import annotations

from typing import Any, Iterable

from edgeq_agent.http.errors import Refused
from edgeq_agent.sdk.tensors import TensorInfo
from edgeq_agent.wire import Json

DATATYPES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}
_NAMES = {dtype: name for name, dtype in DATATYPES.items()}
_MOST_ELEMENTS = 1 << 28


def described(info: TensorInfo, real: bool) -> Json:
    """Return a tensor's metadata; with `real`, quantized integers appear as real values."""
    datatype = "FP32" if real and info.quantized else _NAMES.get(info.dtype.name, info.dtype.name.upper())
    return {"name": info.name, "datatype": datatype, "shape": [int(length) for length in info.shape]}


def inputs_of(request: Json, binary: bytes, declared: bool) -> dict[str, Any]:
    """Return a request's inputs by name.

    Args:
        binary: what follows the JSON part, the tensors' bytes one after another.
        declared: whether the request said where its JSON part ends.

    Raises:
        Refused: 400, an input is not what the protocol says.
    """
    entries = request.get("inputs")
    if not isinstance(entries, list) or not entries:
        raise Refused(400, "inputs: expected a list of tensors")
    found: dict[str, Any] = {}
    used = 0
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise Refused(400, "inputs: expected objects with a name")
        name = entry["name"]
        subject = f"input {name!r}"
        dtype, shape, count = _kind(entry, subject)
        size = parameters(entry, subject).get("binary_data_size")
        if size is None:
            found[name] = _from_json(entry, dtype, shape, count, subject)
            continue
        if not declared or "data" in entry:
            raise Refused(
                400, f"{subject}: binary_data_size needs Inference-Header-Content-Length, and no data"
            )
        if isinstance(size, bool) or not isinstance(size, int) or size != count * dtype.itemsize:
            raise Refused(
                400, f"{subject}: binary_data_size: expected {count * dtype.itemsize}, got {size!r}"
            )
        if used + size > len(binary):
            raise Refused(400, f"{subject}: expected {size} bytes, got {len(binary) - used}")
        found[name] = _from_bytes(binary, dtype, count, used).reshape(shape)
        used += size
    if used != len(binary):
        raise Refused(400, f"the body: {len(binary) - used} bytes belong to no input")
    if len(found) != len(entries):
        raise Refused(400, "inputs: the same name twice")
    return found


def _kind(entry: Json, subject: str) -> tuple[Any, list[int], int]:
    import numpy as np

    datatype, shape = entry.get("datatype"), entry.get("shape")
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        known = ", ".join(DATATYPES)
        raise Refused(400, f"{subject}: datatype: expected one of {known}, got {str(datatype)[:40]}")
    whole = isinstance(shape, list) and all(
        isinstance(length, int) and not isinstance(length, bool) and length >= 0 for length in shape
    )
    if not whole or shape is None or len(shape) > 8:
        raise Refused(
            400, f"{subject}: shape: expected a list of up to 8 whole numbers, got {str(shape)[:80]}"
        )
    count = 1
    for length in shape:
        count *= length
    if count > _MOST_ELEMENTS:
        raise Refused(400, f"{subject}: shape: {count} elements are more than {_MOST_ELEMENTS}")
    return np.dtype(DATATYPES[datatype]), shape, count


def _from_json(entry: Json, dtype: Any, shape: list[int], count: int, subject: str) -> Any:
    import numpy as np

    data = entry.get("data")
    if not isinstance(data, list):
        raise Refused(400, f"{subject}: data: expected a list, flat or nested as the shape")
    if dtype.name == "float16":
        raise Refused(400, f"{subject}: FP16 travels as binary data only")
    try:
        with np.errstate(all="ignore"):
            given = np.array(data)
            array = given.astype(dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise Refused(400, f"{subject}: data: no {entry['datatype']}: {error}"[:300]) from error
    # An integer type takes whole numbers of its range; a cast would make others of them without a word.
    if given.size and (
        given.dtype.kind not in "biuf" or (dtype.kind in "biu" and not (given == array).all())
    ):
        raise Refused(400, f"{subject}: data: holds what is no {entry['datatype']}")
    if array.size != count:
        raise Refused(
            400, f"{subject}: data: expected {count} values for the shape {shape}, got {array.size}"
        )
    return array.reshape(shape)


def _from_bytes(binary: bytes, dtype: Any, count: int, offset: int) -> Any:
    import numpy as np

    # The protocol's byte order is little-endian; a copy, so that the values are aligned and may be written.
    return np.frombuffer(binary, dtype.newbyteorder("<"), count, offset).astype(dtype)


def parameters(entry: Json, subject: str) -> Json:
    """Return an object's parameters.

    Raises:
        Refused: 400, they are none.
    """
    found = entry.get("parameters", {})
    if not isinstance(found, dict):
        raise Refused(400, f"{subject}: parameters: expected an object")
    return found


def flag(found: Json, name: str, subject: str, default: bool = False) -> bool:
    """Return a parameter that is true or false.

    Raises:
        Refused: 400, it is something else.
    """
    value = found.get(name, default)
    if not isinstance(value, bool):
        raise Refused(400, f"{subject}: {name}: expected true or false, got {value!r}"[:200])
    return value


def outputs_to(outputs: Iterable[tuple[str, Any, bool]]) -> tuple[list[Json], bytes]:
    """Return the response's `outputs` and the bytes that follow the JSON part.

    Args:
        outputs: (name, array, whether as binary data).
    """
    entries: list[Json] = []
    parts: list[bytes] = []
    for name, array, binary in outputs:
        entry: Json = {"name": name, "datatype": _NAMES[array.dtype.name], "shape": list(array.shape)}
        if binary:
            data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
            entry["parameters"] = {"binary_data_size": len(data)}
            parts.append(data)
        else:
            entry["data"] = _finite(name, array).reshape(-1).tolist()
        entries.append(entry)
    return entries, b"".join(parts)


def _finite(name: str, array: Any) -> Any:
    import numpy as np

    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise Refused(500, f"output {name!r}: holds NaN or infinity, which JSON has not; ask for binary data")
    return array
