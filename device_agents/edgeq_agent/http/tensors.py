"""Convert tensors of the Open Inference Protocol (JSON or the binary extension) to numpy and back."""

from __future__ import annotations

from typing import Any, NamedTuple

from edgeq_agent.calls.fields import Fields
from edgeq_agent.http.body import Message, object_of, parameters
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
_NO_NAME = "inputs: expected objects with a name"


class TensorMetadata(NamedTuple):
    """Describes an input or output to a client; `shape` has the batch axis."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, info: TensorInfo) -> TensorMetadata:
        """Return the metadata of a tensor; a quantized one is described by its real values."""
        known = _NAMES.get(info.dtype.name, info.dtype.name.upper())
        return cls(
            info.name, "FP32" if info.quantized else known, tuple(int(length) for length in info.shape)
        )

    def to_json(self) -> Json:
        """Return the metadata as the protocol writes it."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


class TensorType(NamedTuple):
    """The type of an input's values in a request: `INT8`, and so on; `shape` as the client states it."""

    datatype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """The number of elements."""
        count = 1
        for length in self.shape:
            count *= length
        return count

    @property
    def dtype(self) -> Any:
        """The numpy dtype."""
        import numpy as np

        return np.dtype(DATATYPES[self.datatype])


class OutputTensor(NamedTuple):
    """An output of a response.

    Attributes:
        array: its values.
        binary: whether they follow the JSON part as bytes.
    """

    name: str
    array: Any
    binary: bool

    def to_bytes(self) -> bytes:
        """Return the values as they follow the JSON part; nothing when they are inside of it."""
        if not self.binary:
            return b""
        data: bytes = self.array.astype(self.array.dtype.newbyteorder("<"), copy=False).tobytes()
        return data

    def to_json(self) -> Json:
        """Return the output's entry in the JSON part.

        Raises:
            Refused: 500, a value cannot be written in JSON.
        """
        entry: Json = {
            "name": self.name,
            "datatype": _NAMES[self.array.dtype.name],
            "shape": list(self.array.shape),
        }
        if self.binary:
            entry["parameters"] = {"binary_data_size": int(self.array.nbytes)}
        else:
            entry["data"] = _finite(self.name, self.array).reshape(-1).tolist()
        return entry


def inputs_of(message: Message) -> dict[str, Any]:
    """Return the inputs of a request as arrays, by name.

    Raises:
        Refused: 400, an input does not follow the protocol.
    """
    entries, binary = message.fields.raw("inputs"), message.binary
    if not isinstance(entries, list) or not entries:
        raise Refused(400, "inputs: expected a list of tensors")
    arrays: dict[str, Any] = {}
    used = 0
    for value in entries:
        entry = object_of(value, _NO_NAME)
        name = entry.raw("name")
        if not isinstance(name, str):
            raise Refused(400, _NO_NAME)
        subject = f"input {name!r}"
        kind = _type_of(entry, subject)
        size = parameters(entry, subject).raw("binary_data_size")
        if size is None:
            arrays[name] = _from_json(entry.raw("data"), kind, subject)
            continue
        if not message.declared or "data" in entry:
            raise Refused(
                400, f"{subject}: binary_data_size needs Inference-Header-Content-Length and excludes data"
            )
        expected = kind.elements * kind.dtype.itemsize
        if isinstance(size, bool) or not isinstance(size, int) or size != expected:
            raise Refused(400, f"{subject}: binary_data_size: expected {expected}, got {size!r}"[:300])
        if used + size > len(binary):
            raise Refused(400, f"{subject}: expected {size} bytes, got {len(binary) - used}")
        arrays[name] = _from_bytes(binary, kind, used)
        used += size
    if used != len(binary):
        raise Refused(400, f"the body: {len(binary) - used} bytes belong to no input")
    if len(arrays) != len(entries):
        raise Refused(400, "inputs: the same name twice")
    return arrays


def _type_of(entry: Fields, subject: str) -> TensorType:
    datatype, shape = entry.raw("datatype"), entry.raw("shape")
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        known = ", ".join(DATATYPES)
        raise Refused(400, f"{subject}: datatype: expected one of {known}, got {str(datatype)[:40]}")
    # Each length alone too: beside a length of 0, one beyond what numpy takes gives few elements.
    valid = isinstance(shape, list) and all(
        isinstance(length, int) and not isinstance(length, bool) and 0 <= length <= _MAX_ELEMENTS
        for length in shape
    )
    if not valid or shape is None or len(shape) > 8:
        raise Refused(
            400,
            f"{subject}: shape: expected a list of up to 8 whole numbers, of at most {_MAX_ELEMENTS} "
            f"elements each, got {str(shape)[:80]}",
        )
    kind = TensorType(datatype, tuple(shape))
    if kind.elements > _MAX_ELEMENTS:
        raise Refused(
            400, f"{subject}: shape: expected at most {_MAX_ELEMENTS} elements, got {kind.elements}"
        )
    return kind


def _from_json(data: Any, kind: TensorType, subject: str) -> Any:
    import numpy as np

    if not isinstance(data, list):
        raise Refused(400, f"{subject}: data: expected a list, flat or nested like the shape")
    dtype = kind.dtype
    if dtype.name == "float16":
        raise Refused(400, f"{subject}: FP16 is accepted as binary data only")
    try:
        with np.errstate(all="ignore"):
            values = np.array(data)
            array = values.astype(dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise Refused(400, f"{subject}: data: not {kind.datatype}: {error}"[:300]) from error
    # A cast to an integer type changes fractions and values out of range without an error.
    if values.size and (
        values.dtype.kind not in "biuf" or (dtype.kind in "biu" and not (values == array).all())
    ):
        raise Refused(400, f"{subject}: data: has a value that is not {kind.datatype}")
    if array.size != kind.elements:
        raise Refused(
            400,
            f"{subject}: data: expected {kind.elements} values for the shape {list(kind.shape)}, "
            f"got {array.size}",
        )
    return array.reshape(kind.shape)


def _from_bytes(binary: bytes, kind: TensorType, offset: int) -> Any:
    import numpy as np

    # The protocol's byte order is little-endian. The copy is aligned and writable.
    read = np.frombuffer(binary, kind.dtype.newbyteorder("<"), kind.elements, offset)
    return read.astype(kind.dtype).reshape(kind.shape)


def _finite(name: str, array: Any) -> Any:
    import numpy as np

    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise Refused(500, f"output {name!r}: has NaN or infinity, which JSON lacks; request binary data")
    return array
