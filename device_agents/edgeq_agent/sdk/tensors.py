"""Convert inputs and outputs on the call path, in buffers that are allocated once.

Integers of a quantized tensor's own type are used as they are. All other values are real values and are
quantized in float32, as the runtime's own QUANTIZE op does. (`model.to_input`, which the verb `infer` uses,
works in float64. The two can differ by one step where a value lies within a float's rounding of the middle.)
"""

from __future__ import annotations

import math
from typing import Any, Iterator, NamedTuple

from edgeq_agent.inference.model import Tensor
from edgeq_agent.sdk.errors import InputMismatch, InputNotFinite

# Quantizing in pieces that stay in the processor's cache halves the time of a large image.
_BLOCK = 16384
# Integers are summed slowly (no BLAS). Of larger inputs only every n-th is summed for telemetry, so that an
# average call sums this many.
_INTEGERS_A_CALL = 2048


class TensorInfo(NamedTuple):
    """Describes an input or output to the caller.

    Attributes:
        name: without the exporter's `serving_default_` and `:0`.
        shape: with the batch axis, which is 1.
        dtype: the model's own type, a numpy dtype.
        scale, zero_point: real = (integer - zero_point) * scale; scale 0.0 means not quantized.
        slices: in place of them, where the slices of an output have scales of their own: arrays of scales
            and zero points that broadcast over the shape.
    """

    name: str
    shape: tuple[int, ...]
    dtype: Any
    scale: float
    zero_point: int
    slices: Any = None

    @property
    def quantized(self) -> bool:
        """Whether its integers stand for real values."""
        return (self.scale != 0.0 or self.slices is not None) and self.dtype.kind in "iu"


def info_of(tensor: Tensor) -> TensorInfo:
    """Return the description of a tensor."""
    return TensorInfo(
        short_name(tensor.name),
        (1, *tensor.shape),
        tensor.dtype,
        tensor.scale,
        tensor.zero_point,
        tensor.slices,
    )


def short_name(name: str) -> str:
    """Return a tensor's name without the exporter's prefix and suffix."""
    prefix = "serving_default_"
    bare = name[len(prefix) :] if name.startswith(prefix) else name
    return bare[:-2] if bare.endswith(":0") else bare


class Feed:
    """Converts a caller's values into the array for one input of the model."""

    def __init__(self, tensor: Tensor, channels: int) -> None:
        import numpy as np

        self.info = info_of(tensor)
        self._single = tuple(tensor.shape)
        self._full = (1, *self._single)
        self._own = tensor.dtype
        self._quantized = tensor.quantized
        self._scale = tensor.scale
        self._zero_point = float(tensor.zero_point)
        if self._own.kind in "iu":
            limits = np.iinfo(self._own)
            self._low, self._high = float(limits.min), float(limits.max)
        size = max(1, int(np.prod(self._single, dtype=np.int64)))
        self.channels = channels if size % max(1, channels) == 0 else 1
        self._rows = size // self.channels
        self._ones = np.ones(self._rows, np.float32)
        self._integers = np.zeros(self._full, self._own)
        # float32 scalars: numpy 1 and 2 agree on what an array makes of them.
        self._step, self._zero = np.float32(tensor.scale), np.float32(tensor.zero_point)
        self._blocks = list(self._in_blocks(size)) if self._quantized else []
        self._skip = -(-size // _INTEGERS_A_CALL) if self._own.kind in "iub" else 1
        self._turn = 0

    def batched(self, array: Any) -> bool:
        """Return whether an array has the batch axis; the answer has it as the input does.

        Raises:
            InputMismatch: EQ540, it has another shape.
        """
        shape = array.shape
        if shape == self._single and shape != self._full:
            return False
        if shape == self._full:
            return True
        raise InputMismatch(
            "input " + self.info.name, expected=_described(self.info), got=f"{shape} of {array.dtype}"
        )

    def take(self, array: Any, sums: Any) -> Any:
        """Return the values in the model's type, with the batch axis; valid until the next call.

        Args:
            array: of one of the two shapes that `batched` accepts.
            sums: float32 of shape (channels,); receives the sum of each channel's real values, or NaN where a
                large input of integers was not summed.

        Raises:
            InputMismatch: EQ540, its type does not fit. InputNotFinite: EQ541, it holds NaN or infinity.
        """
        import numpy as np

        if array.dtype.kind == "f":
            return self._floats(array, sums)
        if array.dtype == self._own:
            self._sum_integers(array, sums)
            return array.reshape(self._full)
        if array.dtype.kind in "iub" and (self._own.kind == "f" or self._quantized):
            return self._floats(array.astype(np.float32 if array.dtype.itemsize < 4 else np.float64), sums)
        if array.dtype.kind in "iub" and self._own.kind in "iu":
            return self._other_integers(array, sums)
        raise self._wrong_type(array)

    def _floats(self, array: Any, sums: Any) -> Any:
        import numpy as np

        if not (self._quantized or self._own.kind == "f"):
            raise self._wrong_type(array)
        given = array if array.dtype == self._own or self._quantized else _cast(array, self._own)
        flat = given if given.dtype == np.float32 else _cast(given, np.float32)
        # Infinities are found in the sum and reported; a huge value is quantized to the last step.
        with np.errstate(over="ignore", invalid="ignore"):
            np.dot(self._ones, flat.reshape(self._rows, self.channels), sums)
            # A NaN or infinity always shows in the sum, but the sum of huge finite values may overflow, too.
            total = sums.item() if self.channels == 1 else sum(sums.tolist())
            if not math.isfinite(total) and not np.isfinite(given).all():
                raise InputNotFinite("input " + self.info.name, "holds NaN or infinity, or overflows to it")
            return self._quantize(flat.reshape(-1)) if self._quantized else given.reshape(self._full)

    def _in_blocks(self, size: int) -> Iterator[tuple[Any, ...]]:
        """Yield for each block its slice, a buffer, the limits and the destination of its integers.

        The limits are arrays: with scalars, numpy's minimum and maximum take four times as long.
        """
        import numpy as np

        limits = np.iinfo(self._own)
        length = min(size, _BLOCK)
        real = np.zeros(length, np.float32)
        low, high = (np.full(length, each, np.float32) for each in (limits.min, _largest(limits.max)))
        integers = self._integers.reshape(-1)
        for start in range(0, size, _BLOCK):
            part = slice(start, min(size, start + _BLOCK))
            count = part.stop - start
            yield part, real[:count], low[:count], high[:count], integers[part]

    def _quantize(self, values: Any) -> Any:
        import numpy as np

        for part, real, low, high, integers in self._blocks:
            np.divide(values[part], self._step, out=real)
            np.rint(real, out=real)
            np.add(real, self._zero, out=real)
            np.maximum(real, low, out=real)
            np.minimum(real, high, out=real)
            np.copyto(integers, real, casting="unsafe")
        return self._integers

    def _sum_integers(self, array: Any, sums: Any) -> None:
        import numpy as np

        self._turn += 1
        if self._turn % self._skip:
            sums.fill(np.nan)
            return
        if self.channels == 1:
            total = float(np.add.reduce(array, axis=None, dtype=np.int64))
            sums[0] = (total - self._rows * self._zero_point) * self._scale if self._quantized else total
            return
        np.dot(self._ones, array.astype(np.float32).reshape(self._rows, self.channels), sums)
        if self._quantized:
            np.subtract(sums, self._rows * self._zero_point, out=sums)
            np.multiply(sums, self._scale, out=sums)

    def _other_integers(self, array: Any, sums: Any) -> Any:
        if array.size and not (self._low <= float(array.min()) and float(array.max()) <= self._high):
            raise InputMismatch(
                "input " + self.info.name,
                expected=f"whole numbers from {self._low:.0f} to {self._high:.0f} ({self._own})",
                got=f"{array.min()} to {array.max()}",
            )
        own = array.astype(self._own)
        self._sum_integers(own, sums)
        return own.reshape(self._full)

    def _wrong_type(self, array: Any) -> InputMismatch:
        return InputMismatch(
            "input " + self.info.name, expected=_described(self.info), got=f"{array.shape} of {array.dtype}"
        )

    def means(self, sums: Any) -> Any:
        """Return the channel means of what `take` summed, shape (samples, channels), without NaN rows."""
        import numpy as np

        return sums[~np.isnan(sums[:, 0])].astype(np.float64) / self._rows

    def real(self, array: Any) -> Any:
        """Return an input's real values, float32, with the batch axis, for a shadow."""
        import numpy as np

        if self._quantized and array.dtype == self._own:
            real = (array.astype(np.float64) - self._zero_point) * self._scale
            return real.reshape(self._full).astype(np.float32)
        return np.array(array, np.float32).reshape(self._full)


class Drain:
    """Converts one output of the model into the caller's values."""

    def __init__(self, tensor: Tensor) -> None:
        import numpy as np

        self.info = info_of(tensor)
        self.quantized = tensor.quantized
        scale, zero_point = tensor.slices or (tensor.scale, tensor.zero_point)
        self._scale, self._zero_point = np.float32(scale), np.float32(zero_point)

    def real(self, values: Any) -> Any:
        """Return the real values of an output as float32; the array itself when it is not quantized."""
        import numpy as np

        if not self.quantized:
            return values
        real = np.subtract(values, self._zero_point, dtype=np.float32)
        return np.multiply(real, self._scale, out=real)


def _largest(whole: int) -> Any:
    """Return the largest float32 that is not above an integer (2**31 - 1 is not a float32)."""
    import numpy as np

    near = np.float32(whole)
    return near if int(near) <= whole else np.nextafter(near, np.float32(0))


def _cast(array: Any, dtype: Any) -> Any:
    import numpy as np

    with np.errstate(over="ignore"):  # values that become infinite are found and reported right after
        return array.astype(dtype)


def _described(info: TensorInfo) -> str:
    shape = info.shape[1:]
    if info.quantized:
        return f"{shape} of {info.dtype}, or real values of float32"
    return f"{shape} of {info.dtype}"
