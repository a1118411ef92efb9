"""Whether packing a chunk pays, asked for each chunk: by what a sample gains, and by how fast the link is."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable

from edgeq_agent.wire import AS_IT_IS, ZLIB

_LEVEL = 1
_SAMPLES = 4
_SAMPLE_BYTES = 2048
# Less than this is not worth the device's time to unpack it.
_LEAST_GAIN = 0.1
# What fills buffers on the way looks like an endlessly fast link; before that much was sent, it says nothing.
_BUFFERED_BYTES = 8 * 1024 * 1024
_GUESSED_BYTES_PER_S = 50e6


class Packer:
    """Packs what gains; learns from what it did how fast packing and the link are.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._packed_bytes, self._packing_s = 0, 0.0
        self._sent_bytes, self._sending_s = 0, 0.0

    def pack(self, data: bytes) -> tuple[int, bytes]:
        """Return how a chunk travels, and its bytes then."""
        gain = 1.0 - _sampled_ratio(data)
        if gain < _LEAST_GAIN or not self._pays(gain):
            return AS_IT_IS, data
        started_s = self._clock()
        packed = zlib.compress(data, _LEVEL)
        self._packing_s += self._clock() - started_s
        self._packed_bytes += len(data)
        if len(packed) > (1.0 - _LEAST_GAIN) * len(data):
            return AS_IT_IS, data
        return ZLIB, packed

    def sent(self, size_bytes: int, seconds: float) -> None:
        """Learn that so many bytes took so long to go out."""
        self._sent_bytes += size_bytes
        self._sending_s += seconds

    def _pays(self, gain: float) -> bool:
        if self._sent_bytes < _BUFFERED_BYTES or self._sending_s == 0.0:
            return True
        link_s = gain * self._sending_s / self._sent_bytes
        return link_s > 1.0 / self._bytes_per_s()

    def _bytes_per_s(self) -> float:
        return self._packed_bytes / self._packing_s if self._packing_s else _GUESSED_BYTES_PER_S


def _sampled_ratio(data: bytes) -> float:
    """Return about what share of a chunk would be left: from a few pieces spread over it."""
    if len(data) <= _SAMPLES * _SAMPLE_BYTES:
        sample = data
    else:
        step = (len(data) - _SAMPLE_BYTES) // (_SAMPLES - 1)
        sample = b"".join(data[at * step : at * step + _SAMPLE_BYTES] for at in range(_SAMPLES))
    return len(zlib.compress(sample, _LEVEL)) / len(sample) if sample else 1.0
