"""`edgeq infer`: run data through a model on a device."""

from __future__ import annotations

from pathlib import Path

import click

from edgeq.cli import completing
from edgeq.cli.device_options import on_device_option, retries_option, retry_policy, timeout_option
from edgeq.cli.ui import App, command
from edgeq.units import format_duration, format_percent


@command(
    "infer",
    examples=[
        "edgeq infer kws --on pi --data evaluation.npz",
        "edgeq infer kws --on pi --data x.npz --json",
        "edgeq infer kws --on pi --data stream.npz --sequence",
    ],
)
@click.argument("model", shell_complete=completing.models)
@on_device_option
@click.option(
    "--data", required=True, type=click.Path(path_type=Path), help="An .npz with the inputs x, and labels y."
)
@click.option(
    "--window",
    default=50,
    show_default=True,
    type=click.IntRange(1, 1_000_000),
    help="Samples per telemetry window.",
)
@click.option(
    "--sequence",
    is_flag=True,
    help="The samples follow each other: do not reset the state of a model that keeps one. An array "
    "sequence_id in the data separates several sequences.",
)
@click.option("--outputs", is_flag=True, help="Include the raw outputs in the JSON document.")
@timeout_option
@retries_option()
def infer_command(
    app: App,
    model: str,
    name: str,
    data: Path,
    window: int,
    sequence: bool,
    outputs: bool,
    timeout_s: int,
    retries: int,
) -> None:
    """Run the samples of a file through MODEL on a device; it records telemetry as in production."""
    from edgeq.fleet.agent.payloads import load_samples
    from edgeq.fleet.operations import infer

    device = app.inventory().get(name)
    samples = load_samples(data)
    result = infer(
        device,
        model,
        samples.payload,
        window=window,
        sequence=sequence,
        outputs=outputs,
        timeout_s=timeout_s,
        retry_policy=retry_policy(app, retries),
    )
    accuracy = samples.accuracy(result.predicted)
    p50_ns, p95_ns = result.latency_ns.p50, result.latency_ns.p95
    latency = (
        f"p50 {format_duration(p50_ns)}, p95 {format_duration(p95_ns)}"
        if p50_ns is not None and p95_ns is not None
        else "no latency"
    )
    app.ui.line(
        f"{name}: {result.samples} samples through {model} {result.release[:12]}, {latency}"
        + (f", accuracy {format_percent(accuracy)}" if accuracy is not None else "")
    )
    if (sequence or samples.has_sequences) and result.sequences is None:
        if "sequences" in result.document:
            app.ui.note(f"{model} keeps no state: sequences change nothing")
        else:
            app.ui.warn(
                f"the agent on {name} does not know sequences; `edgeq deploy BUNDLE --to {name}` sends the "
                "present one"
            )
    for kind, count in result.errors.items():
        app.ui.warn(f"{count} x {kind}")
    app.ui.emit("edgeq.infer/1", {"device": name, "accuracy": accuracy, **result.document})
    app.ui.next("collect", name)
