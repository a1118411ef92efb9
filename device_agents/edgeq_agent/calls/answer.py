"""The answer of one call: JSON lines on standard output, flushed one by one."""

from __future__ import annotations

import os
from typing import Any, BinaryIO

from edgeq_agent import wire


class Answer:
    """Writes messages; a host that went away never stops what the device is doing."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.heard = True

    def send(self, message: wire.Json) -> None:
        """Write one message.

        When the connection is gone, the rest of the answer goes nowhere: an activation in the middle must
        still
        reach a state of its own, and the next call reads it from the device.
        """
        if not self.heard:
            return
        try:
            self._stream.write(wire.dump(message))
            self._stream.flush()
        except BrokenPipeError:
            self.heard = False
            # Python flushes standard output once more at exit; let that go nowhere too.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def progress(self, step: str, **details: Any) -> None:
        """Tell that something was reached."""
        self.send(wire.progress(step, **details))
