"""Convert tensors of the Open Inference Protocol (JSON or the binary extension) to numpy and back."""

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
_MAX_ELEMENTS = 1 << 28


def describe(info: TensorInfo, real: bool) -> Json:
    """Return a tensor's metadata; with `real`, a quantized tensor is described by its real values."""
    datatype = "FP32" if real and info.quantized else _NAMES.get(info.dtype.name, info.dtype.name.upper())
    return {"name": info.name, "datatype": datatype, "shape": [int(length) for length in info.shape]}


def inputs_of(request: Json, binary: bytes, declared: bool) -> dict[str, Any]:
    """Return a request's inputs by name.

    Args:
        binary: the bytes after the JSON part: the binary tensors, one after another.
        declared: whether a header gave the length of the JSON part.

    Raises:
        Refused: 400, an input does not follow the protocol.
    """
    entries = request.get("inputs")
    if not isinstance(entries, list) or not entries:
        raise Refused(400, "inputs: expected a list of tensors")
    arrays: dict[str, Any] = {}
    used = 0
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise Refused(400, "inputs: expected objects with a name")
        name = entry["name"]
        subject = f"input {name!r}"
        dtype, shape, count = _type_of(entry, subject)
        size = parameters(entry, subject).get("binary_data_size")
        if size is None:
            arrays[name] = _from_json(entry, dtype, shape, count, subject)
            continue
        if not declared or "data" in entry:
            raise Refused(
                400, f"{subject}: binary_data_size needs Inference-Header-Content-Length and excludes data"
            )
        if isinstance(size, bool) or not isinstance(size, int) or size != count * dtype.itemsize:
            raise Refused(
                400, f"{subject}: binary_data_size: expected {count * dtype.itemsize}, got {size!r}"
            )
        if used + size > len(binary):
            raise Refused(400, f"{subject}: expected {size} bytes, got {len(binary) - used}")
        arrays[name] = _from_bytes(binary, dtype, count, used).reshape(shape)
        used += size
    if used != len(binary):
        raise Refused(400, f"the body: {len(binary) - used} bytes belong to no input")
    if len(arrays) != len(entries):
        raise Refused(400, "inputs: the same name twice")
    return arrays


def _type_of(entry: Json, subject: str) -> tuple[Any, list[int], int]:
    import numpy as np

    datatype, shape = entry.get("datatype"), entry.get("shape")
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        known = ", ".join(DATATYPES)
        raise Refused(400, f"{subject}: datatype: expected one of {known}, got {str(datatype)[:40]}")
    valid = isinstance(shape, list) and all(
        isinstance(length, int) and not isinstance(length, bool) and length >= 0 for length in shape
    )
    if not valid or shape is None or len(shape) > 8:
        raise Refused(
            400, f"{subject}: shape: expected a list of up to 8 whole numbers, got {str(shape)[:80]}"
        )
    count = 1
    for length in shape:
        count *= length
    if count > _MAX_ELEMENTS:
        raise Refused(400, f"{subject}: shape: expected at most {_MAX_ELEMENTS} elements, got {count}")
    return np.dtype(DATATYPES[datatype]), shape, count


def _from_json(entry: Json, dtype: Any, shape: list[int], count: int, subject: str) -> Any:
    import numpy as np

    data = entry.get("data")
    if not isinstance(data, list):
        raise Refused(400, f"{subject}: data: expected a list, flat or nested like the shape")
    if dtype.name == "float16":
        raise Refused(400, f"{subject}: FP16 is accepted as binary data only")
    try:
        with np.errstate(all="ignore"):
            values = np.array(data)
            array = values.astype(dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise Refused(400, f"{subject}: data: not {entry['datatype']}: {error}"[:300]) from error
    # A cast to an integer type changes fractions and values out of range without an error.
    if values.size and (
        values.dtype.kind not in "biuf" or (dtype.kind in "biu" and not (values == array).all())
    ):
        raise Refused(400, f"{subject}: data: has a value that is not {entry['datatype']}")
    if array.size != count:
        raise Refused(
            400, f"{subject}: data: expected {count} values for the shape {shape}, got {array.size}"
        )
    return array.reshape(shape)


def _from_bytes(binary: bytes, dtype: Any, count: int, offset: int) -> Any:
    import numpy as np

    # The protocol's byte order is little-endian. The copy is aligned and writable.
    return np.frombuffer(binary, dtype.newbyteorder("<"), count, offset).astype(dtype)


def parameters(entry: Json, subject: str) -> Json:
    """Return an object's parameters.

    Raises:
        Refused: 400, they are not an object.
    """
    values = entry.get("parameters", {})
    if not isinstance(values, dict):
        raise Refused(400, f"{subject}: parameters: expected an object")
    return values


def flag(values: Json, name: str, subject: str, default: bool = False) -> bool:
    """Return a boolean parameter.

    Raises:
        Refused: 400, it is not a boolean.
    """
    value = values.get(name, default)
    if not isinstance(value, bool):
        raise Refused(400, f"{subject}: {name}: expected true or false, got {value!r}"[:200])
    return value


def outputs_to(outputs: Iterable[tuple[str, Any, bool]]) -> tuple[list[Json], bytes]:
    """Return the response's `outputs` and the bytes after the JSON part.

    Args:
        outputs: (name, array, whether to send binary data).
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
        raise Refused(500, f"output {name!r}: has NaN or infinity, which JSON lacks; request binary data")
    return array
