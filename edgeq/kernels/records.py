"""The kernel tables of a store: what probes of devices and of this machine found."""

from __future__ import annotations

from edgeq.kernels.table import from_json, shipped_tables
from edgeq.store import RunRecord, Store
from edgeq_converters.kernels import KernelTable

KIND = "kernels"
CLASS_KIND = "machine-class"
_RECENT = 10_000
_NARROW = {"aarch64": "armv7l", "armv8l": "armv7l", "x86_64": "i686"}
_ALIASES = {"amd64": "x86_64", "arm64": "aarch64", "armhf": "armv7l"}
"""Names that distributions and other systems use, in lower case."""


def table_for(name: str, store: Store | None, *, machine: str | None = None) -> KernelTable | None:
    """Return the kernel table of a device or of a class of machines; None where there is none.

    The last probe of a device of this name comes first, then that of a machine of its class, then the table
    of this class that comes with edgeq. A real machine comes before an emulated one.

    Args:
        name: of a device, or a class of machines such as `aarch64`.
        store: None where there is none yet.
        machine: the device's class of machines; None for the one that is recorded.

    Raises:
        StoreError: the record is damaged.
    """
    runs = [] if store is None else store.runs(KIND, limit=_RECENT)
    mine = next((run for run in runs if run.subject == name), None)  # the last one first
    if mine is not None:
        return _table(mine)
    recorded = machine or (None if store is None else class_of(name, store))
    machine = recorded or _ALIASES.get(name.lower(), name.lower())
    latest: dict[str, RunRecord] = {}
    for run in runs:
        latest.setdefault(run.subject, run)
    same = [_table(run) for run in latest.values() if run.body.get("machine") == machine]
    same += [table for table in shipped_tables() if table.machine == machine]
    return next((table for table in same if not table.emulated), same[0] if same else None)


def class_of(name: str, store: Store) -> str | None:
    """Return the class of machines of a device, as it said last; None where it is not recorded."""
    runs = store.runs(CLASS_KIND, limit=_RECENT)
    return next((str(run.body.get("machine")) for run in runs if run.subject == name), None)


def class_name(machine: str, pointer_bits: int) -> str:
    """Return the class of a machine for programs; a 64-bit kernel may have a 32-bit userland.

    Args:
        machine: as its operating system names it.
        pointer_bits: of its programs.
    """
    wide = _ALIASES.get(machine.lower(), machine)
    return _NARROW.get(wide, wide) if pointer_bits == 32 else wide


def record_class(name: str, machine: str, store: Store) -> None:
    """Record the class of machines of a device, unless it is recorded already."""
    if class_of(name, store) != machine:
        store.record_run(CLASS_KIND, name, {"machine": machine})


def _table(run: RunRecord) -> KernelTable:
    body, rows = dict(run.body), run.body.get("rows")
    if isinstance(rows, list):
        # Older records do not say whether the runtime was asked: their `none` refuses nothing.
        body["rows"] = [
            {"tried": row.get("kernel") != "none", **row} if isinstance(row, dict) else row for row in rows
        ]
    return from_json(body, subject=f"run {run.id}")
