"""`edgeq devices kernels`: which kernels a runtime has for operations and schemes, and how fast they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgeq.cli import completing
from edgeq.cli.ui import App, Ui, command
from edgeq.errors import UsageError

if TYPE_CHECKING:
    from edgeq.kernels import KernelTable


@command(
    "kernels",
    examples=[
        "edgeq devices kernels",
        "edgeq devices kernels pi",
        "edgeq devices kernels pi --op CONV_2D --op LOGISTIC",
        "edgeq devices kernels --show x86_64",
    ],
)
@click.argument("name", required=False, shell_complete=completing.devices)
@click.option(
    "--show",
    metavar="NAME",
    shell_complete=completing.devices,
    help="Show the table of a device or of a class of machines, such as x86_64, and measure nothing.",
)
@click.option(
    "--op",
    "operations",
    metavar="OP",
    multiple=True,
    help="Operation to measure, such as CONV_2D, or `all`; repeatable.  [default: all; on a device five]",
)
@click.option(
    "--emulated",
    is_flag=True,
    help="The device's processor is emulated: keep which kernels it has, not how fast they are.",
)
def kernels_command(
    app: App, name: str | None, show: str | None, operations: tuple[str, ...], emulated: bool
) -> None:
    """Measure kernels here or on the device NAME: one operation at a time, in each scheme, beside float32.

    On a device, each model is deployed as `edgeq-kernels` and benchmarked; the models in use are untouched.

    The table is recorded. `edgeq convert --for`, `edgeq search` and `edgeq doctor` use it: a scheme that is
    slower than float32 on a machine is not proposed for it.
    """
    from edgeq.benchmark.kernel_probe import DEVICE_OPERATIONS, probe_device, probe_this_machine
    from edgeq.cli.progress import worker_progress
    from edgeq.kernels import shipped_tables, table_for, to_json
    from edgeq.store import Store
    from edgeq_converters.values import PROBED_OPERATIONS

    if (name is not None and show is not None) or (emulated and name is None) or (operations and show):
        raise UsageError(
            "edgeq devices kernels",
            "takes --show alone, and --emulated with the NAME of a device",
            hint="give the name of a device before --emulated, or leave the other options out",
        )
    chosen = _operations(operations, default=PROBED_OPERATIONS if name is None else DEVICE_OPERATIONS)
    device = None if name is None else app.inventory().get(name)
    with Store.open(app.workspace) as store:
        if show is not None:
            table = table_for(show, store)
        else:
            with worker_progress(app.ui) as on_progress:
                table = (
                    probe_this_machine(operations=chosen, store=store, on_progress=on_progress)
                    if device is None
                    else probe_device(
                        device,
                        workspace=app.workspace,
                        store=store,
                        operations=chosen,
                        emulated=emulated,
                        on_progress=on_progress,
                        say=app.ui.note,
                    )
                )
    if table is None:
        known = ", ".join(sorted({each.machine for each in shipped_tables()}))
        raise UsageError(
            "--show",
            expected=f"a device or a class of machines with a table: {known}",
            got=repr(show),
            hint="without --show, the command measures this machine, or the device whose name it gets",
        )
    app.ui.emit("edgeq.kernels/1", to_json(table))
    _show(app.ui, table)


def _operations(given: tuple[str, ...], *, default: tuple[str, ...]) -> tuple[str, ...]:
    from edgeq_converters.values import PROBED_OPERATIONS

    names = tuple(dict.fromkeys(each.upper() for each in given))
    if names == ("ALL",):
        return PROBED_OPERATIONS
    unknown = next((each for each in names if each not in PROBED_OPERATIONS), None)
    if unknown is not None:
        raise UsageError(
            "--op",
            expected=f"all, or some of {', '.join(PROBED_OPERATIONS)}",
            got=repr(unknown),
            hint="only operations with a model of their own can be measured",
        )
    return names or default


def _show(ui: Ui, table: KernelTable) -> None:
    from edgeq.kernels import unsuited

    schemes = list(dict.fromkeys(row.scheme for row in table.rows))
    rows = []
    for operation in dict.fromkeys(row.operation for row in table.rows):
        cells = [operation]
        for scheme in schemes:
            row = table.row(operation, scheme)
            ratio = "" if row is None or row.ratio is None else f"{row.ratio:.2f} "
            cells.append("-" if row is None else f"{ratio}{row.kernel}")
        rows.append(cells)
    emulated = ", emulated" if table.emulated else ""
    ui.line(f"{table.machine}{emulated}: {table.source}, {table.runtime}, {table.measured_on}")
    ui.table(["latency over float32", *(scheme.value for scheme in schemes)], rows)
    for scheme in schemes:
        reason = unsuited(table, scheme)
        if reason is not None:
            ui.note(f"not proposed: {reason}")
