"""`edgeq devices native`: use TFLite's benchmark_model on a device for which there is no Python runtime."""

from __future__ import annotations

from pathlib import Path

import click

from edgeq.cli import completing
from edgeq.cli.device_options import retries_option, retry_policy
from edgeq.cli.ui import App, command
from edgeq.errors import UsageError


@command(
    "native",
    examples=["edgeq devices native phone ./benchmark_model", "edgeq devices native phone --forget"],
)
@click.argument("name", shell_complete=completing.devices)
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--forget", is_flag=True, help="Stop using the native benchmark program.")
@retries_option()
def native_command(app: App, name: str, file: Path | None, forget: bool, retries: int) -> None:
    """Test FILE, a benchmark_model built for the device NAME, there, and use it when no other runtime starts.

    It loads and runs models and measures latency, but returns no outputs. A release that runs on it is only
    known to run: its outputs are not checked, and `edgeq infer` refuses it.
    """
    from edgeq.fleet.runtimes.native import forget_native, use_native

    if forget == (file is not None):
        raise UsageError(
            "edgeq devices native", "needs a FILE, or --forget", hint=f"`edgeq devices native {name} FILE`"
        )
    if file is None:
        forget_native(app.workspace, name)
        app.ui.say(
            f"{name}: no longer uses a native program; `edgeq prune --on {name}` removes it from the device"
        )
        app.ui.emit("edgeq.devices.native/1", {"device": name, "sha256": None, "runtime": None})
        return
    runtime = use_native(app.workspace, name, file, retry_policy=retry_policy(app, retries))
    (program,) = runtime.files
    app.ui.line(f"{name}: {program.path} runs there, sha256 {program.sha256[:12]}")
    body = {"device": name, "sha256": program.sha256, "runtime": runtime.digest}
    app.ui.emit("edgeq.devices.native/1", body)
    app.ui.next("deploy", "BUNDLE", "--to", name)
