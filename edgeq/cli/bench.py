"""`edgeq bench`: measure a model's latency, start and memory on a device."""

from __future__ import annotations

import click

from edgeq.cli.options import Number
from edgeq.cli.retries import retries_option, retry_of
from edgeq.cli.ui import App, command


@command(
    "bench",
    examples=[
        "edgeq bench kws --on pi",
        "edgeq bench kws --on pi --runs 1000 --seconds 10 --json",
    ],
)
@click.argument("model")
@click.option("--on", "name", required=True, help="The device.")
@click.option("--runs", default=200, show_default=True, type=click.IntRange(1, 1_000_000), help="At least.")
@click.option("--seconds", default=1.0, show_default=True, type=Number(0, 3600), help="At least as long.")
@click.option("--warmup", default=10, show_default=True, type=click.IntRange(0), help="Runs not counted.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1, 256))
@click.option(
    "--timeout", "timeout_s", default=120, show_default=True, type=click.IntRange(1), help="Seconds."
)
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
    """Measure MODEL in a fresh process on a device: latency, load, first inference, peak memory."""
    from edgeq.benchmark import NativeResult, measure, native_summary, summary
    from edgeq.fleet.connect import ask
    from edgeq.fleet.inventory import Inventory
    from edgeq.store import Store

    device = Inventory.load(app.workspace).get(name)
    with Store.open(app.workspace) as store:
        app.ui.detail(f"{name}: {runs} runs and {seconds:g} s at least")
        result = ask(
            device,
            lambda client: measure(
                client,
                model,
                device=name,
                runs=runs,
                min_seconds=seconds,
                warmup=warmup,
                threads=threads,
                timeout_s=timeout_s,
            ),
            repeatable=True,  # the device keeps nothing of it
            retry=retry_of(app, retries),
        )
        if isinstance(result, NativeResult):
            # Beside the others it would pass for one of them: other inputs, another statistic.
            number = store.record_run("native-bench", model, {**result.document, "device": name})
            lines, schema = native_summary(result), "edgeq.native-bench/1"
        else:
            number = store.record_bench(name, result.document)
            lines, schema = summary(result), "edgeq.bench/1"
    app.ui.line(f"{name}: {model} {result.release[:12]}")
    for line in lines:
        app.ui.line(f"  {line}")
    app.ui.emit(schema, {**result.document, "device": name, "id": number, "valid": result.valid})
    app.ui.next("edgeq report -o report.html")
