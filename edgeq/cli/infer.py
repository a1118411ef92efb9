"""`edgeq infer`: run data through a device's current model."""

from __future__ import annotations

from pathlib import Path

import click

from edgeq.cli.retries import retries_option, retry_of
from edgeq.cli.ui import App, command
from edgeq.units import format_duration, format_percent


@command(
    "infer",
    examples=["edgeq infer kws --on pi --data evaluation.npz", "edgeq infer kws --on pi --data x.npz --json"],
)
@click.argument("model")
@click.option("--on", "name", required=True, help="The device.")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="An .npz with x (and y).")
@click.option(
    "--window", default=50, show_default=True, type=click.IntRange(1), help="Samples a telemetry window."
)
@click.option("--outputs", is_flag=True, help="Put the raw outputs into the JSON document.")
@click.option(
    "--timeout", "timeout_s", default=120, show_default=True, type=click.IntRange(1), help="Seconds."
)
@retries_option()
def infer_command(
    app: App,
    model: str,
    name: str,
    data: Path,
    window: int,
    outputs: bool,
    timeout_s: int,
    retries: int,
) -> None:
    """Run the samples of a file through MODEL on a device; telemetry is recorded there as in service."""
    from edgeq.fleet.agent.payloads import load_samples
    from edgeq.fleet.inventory import Inventory
    from edgeq.fleet.operations import infer

    device = Inventory.load(app.workspace).get(name)
    samples = load_samples(data)
    answer = infer(
        device,
        model,
        samples.payload,
        window=window,
        outputs=outputs,
        timeout_s=timeout_s,
        retry=retry_of(app, retries),
    )
    accuracy = samples.accuracy(answer["predicted"])
    latency = answer["latency_ns"]
    app.ui.line(
        f"{name}: {answer['samples']} samples through {model} {answer['release'][:12]}, "
        f"p50 {format_duration(latency['p50'])}, p95 {format_duration(latency['p95'])}"
        + (f", accuracy {format_percent(accuracy)}" if accuracy is not None else "")
    )
    for kind, count in answer.get("errors", {}).items():
        app.ui.warn(f"{count} x {kind}")
    app.ui.emit("edgeq.infer/1", {"device": name, "accuracy": accuracy, **answer})
    app.ui.next(f"edgeq collect {name}")
