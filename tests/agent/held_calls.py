"""Hold calls of the SDK inside the model, and list the objects that are alive, to look while calls run."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from edgeq_agent.sdk.slot import Slot

T = TypeVar("T")


class HeldCalls:
    """Calls in threads of their own, each of which waits in `Slot.run` until `finish`.

    Attributes:
        begun: how many calls have an interpreter.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = 0
        self._go = threading.Event()
        self._threads: list[threading.Thread] = []
        self._answers: list[Any] = []
        run = Slot.run

        def held(slot: Slot, x: Any, raw: bool) -> Any:
            self.begun += 1
            assert self._go.wait(60)
            return run(slot, x, raw)

        monkeypatch.setattr(Slot, "run", held)

    def start(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        """Begin a call."""
        thread = threading.Thread(target=lambda: self._answers.append(call(*arguments, **options)))
        self._threads.append(thread)
        thread.start()

    def finish(self) -> list[Any]:
        """Let all calls go on, wait for their end, and return their answers."""
        self._go.set()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()
        return self._answers


def alive(kind: type[T]) -> list[T]:
    """Return the objects of a class in this process."""
    gc.collect()
    return [each for each in gc.get_objects() if isinstance(each, kind)]
