"""`edgeq bench`: measure a model's latency, start-up time and memory on a device."""

from __future__ import annotations

import click

from edgeq.cli import completing
from edgeq.cli.device_options import on_device_option, retries_option, retry_policy, timeout_option
from edgeq.cli.options import Number
from edgeq.cli.ui import App, command


@command(
    "bench",
    examples=[
        "edgeq bench kws --on pi",
        "edgeq bench kws --on pi --runs 1000 --seconds 10 --json",
    ],
)
@click.argument("model", shell_complete=completing.models)
@on_device_option
@click.option(
    "--runs",
    default=200,
    show_default=True,
    type=click.IntRange(1, 1_000_000),
    help="The minimum number of inferences.",
)
@click.option(
    "--seconds",
    default=1.0,
    show_default=True,
    type=Number(0, 3600),
    help="The minimum duration; both minimums hold.",
)
@click.option(
    "--warmup",
    default=10,
    show_default=True,
    type=click.IntRange(0, 1_000_000),
    help="Runs that are not counted.",
)
@click.option(
    "--threads", default=1, show_default=True, type=click.IntRange(1, 256), help="Threads of the interpreter."
)
@timeout_option
@retries_option()
def bench_command(
    app: App,
    model: str,
    name: str,
    runs: int,
    seconds: float,
    warmup: int,
    threads: int,
    timeout_s: int,
    retries: int,
) -> None:
    """Measure MODEL in a fresh process on a device: latency, load time, first inference, peak memory."""
    from edgeq.benchmark import BenchSettings, NativeResult, measure_and_record, native_summary, summary
    from edgeq.fleet.connect import ask
    from edgeq.store import Store

    device = app.inventory().get(name)
    settings = BenchSettings(
        runs=runs, min_seconds=seconds, warmup=warmup, threads=threads, timeout_s=timeout_s
    )
    with Store.open(app.workspace) as store:
        app.ui.detail(f"{name}: at least {runs} runs and {seconds:g} s")
        recorded = ask(
            device,
            lambda client: measure_and_record(client, model, device=name, settings=settings, store=store),
            repeatable=True,  # a benchmark leaves no state on the device
            retry_policy=retry_policy(app, retries),
        )
    result = recorded.result
    app.ui.line(f"{name}: {model} {result.release[:12]}")
    native = isinstance(result, NativeResult)
    for line in native_summary(result) if isinstance(result, NativeResult) else summary(result):
        app.ui.line(f"  {line}")
    body = {**result.document, "device": name, "id": recorded.number, "valid": result.valid}
    app.ui.emit("edgeq.native-bench/1" if native else "edgeq.bench/1", body)
    app.ui.next("report", "-o", "report.html")
