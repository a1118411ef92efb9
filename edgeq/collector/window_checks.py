"""Check a telemetry record before it is stored: its schema, its bounds, and its release's reference."""

from __future__ import annotations

from typing import Any

from edgeq.bundle.drift_reference import DriftReference, mismatch, stored_reference
from edgeq.errors import BundleError
from edgeq.store import ReceivedWindow, RefusedRecord, Store
from edgeq_agent.telemetry.ddsketch import RELATIVE_ACCURACY
from edgeq_agent.telemetry.window import Window, WindowError

# A device's clock may be wrong. A window that ends later than this after the host's time is stored and
# marked: its times are shown as the device sent them, and nothing is ordered by them.
FUTURE_TOLERANCE_NS = 24 * 3600 * 10**9


class ReleaseChecks:
    """What the store knows of each release, read once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, tuple[str | None, DriftReference | None]] = {}

    def problem(self, window: Window) -> str | None:
        """Return why a window cannot be of its release, or None; nothing is known of a foreign release."""
        if window.release not in self._known:
            self._known[window.release] = self._read(window.release)
        model, reference = self._known[window.release]
        if model is not None and window.model != model:
            return f"model: expected {model}, the model of release {window.release[:12]}, got {window.model}"
        return None if reference is None else mismatch(reference, window)

    def _read(self, release: str) -> tuple[str | None, DriftReference | None]:
        record = self._store.release(release)
        if record is None:
            return None, None
        model = record.manifest.get("model")
        try:
            reference = stored_reference(self._store, release)
        except BundleError:
            reference = None  # damaged: `edgeq monitor` says so where it is used
        return model if isinstance(model, str) else None, reference


def check_window(record: Any, now_ns: int, releases: ReleaseChecks) -> ReceivedWindow | RefusedRecord:
    """Return a record as a window, or refused with the reason; one from the future is marked.

    Args:
        record: the JSON value as the device sent it.
        now_ns: the host's time, ns since the epoch.
    """
    try:
        received = ReceivedWindow.parse(record)
    except WindowError as error:
        return RefusedRecord(reason=str(error), body=record)
    if received.window.ended_ns - now_ns > FUTURE_TOLERANCE_NS:
        # The same mark each time, so that a window that is sent twice is recognized.
        received = ReceivedWindow.parse({**record, "clock_synced": False})
    reason = _problem(received.window) or releases.problem(received.window)
    return received if reason is None else RefusedRecord(reason=reason, body=record)


def _problem(window: Window) -> str | None:
    accuracy = window.latency.relative_accuracy
    if accuracy != RELATIVE_ACCURACY:
        # Sketches of different accuracy do not add up, and no agent makes another one.
        return f"latency.relative_accuracy: expected {RELATIVE_ACCURACY}, got {accuracy}"
    return None
