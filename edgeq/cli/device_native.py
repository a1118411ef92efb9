"""`edgeq devices native`: give a device TFLite's own benchmark_model, where no Python runtime fits it."""

from __future__ import annotations

from pathlib import Path

import click

from edgeq.cli.retries import retries_option, retry_of
from edgeq.cli.ui import App, command
from edgeq.errors import UsageError


@command(
    "native",
    examples=["edgeq devices native phone ./benchmark_model", "edgeq devices native phone --forget"],
)
@click.argument("name")
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--forget", is_flag=True, help="Use none any more.")
@retries_option()
def native_command(app: App, name: str, file: Path | None, forget: bool, retries: int) -> None:
    """Prove FILE, a benchmark_model for the device NAME, there, and deploy over it where nothing else starts.

    It loads and runs models and tells times. It gives no outputs: a release that is deployed over it was seen
    to run, what it answers was not looked at, and `edgeq infer` is refused.
    """
    from edgeq.fleet.runtimes.native import forget_native, use_native

    if forget == (file is not None):
        raise UsageError(
            "edgeq devices native", "needs a FILE, or --forget", hint=f"edgeq devices native {name} FILE"
        )
    if file is None:
        forget_native(app.workspace, name)
        app.ui.say(f"{name}: uses no native program any more; `edgeq prune` removes it from the device")
        app.ui.emit("edgeq.devices.native/1", {"device": name, "sha256": None, "runtime": None})
        return
    runtime = use_native(app.workspace, name, file, retry=retry_of(app, retries))
    (program,) = runtime.files
    app.ui.line(f"{name}: {program.path} runs there, sha256 {program.sha256[:12]}")
    body = {"device": name, "sha256": program.sha256, "runtime": runtime.digest}
    app.ui.emit("edgeq.devices.native/1", body)
    app.ui.next(f"edgeq deploy BUNDLE --to {name}")
