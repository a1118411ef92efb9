"""Run the demo: every step in order, timed, with one line for its result."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from edgeq.benchmark import bench as measure
from edgeq.blueprint import load_blueprint
from edgeq.collector import collect
from edgeq.demo import field as device_side
from edgeq.demo import model as model_side
from edgeq.demo.digits import Digits, load_digits, with_fog
from edgeq.demo.folder import BLUEPRINT, prepare
from edgeq.demo.lines import StepLog, bench_line, deploy_line, limits_line, traffic_line, variant_line
from edgeq.demo.result import DemoResult
from edgeq.fleet.connect import open_agent
from edgeq.fleet.enrol import enrol
from edgeq.fleet.inventory import Inventory
from edgeq.fleet.responses import Activation
from edgeq.report import build_view, write_report
from edgeq.selection import require_chosen, select
from edgeq.store import Store
from edgeq.units import format_percent, format_size


def write_data(folder: Path, digits: Digits) -> None:
    """Write the data sets of the blueprint, and the training data for further experiments."""
    digits.training.save(folder / "training.npz")
    digits.calibration.save(folder / "calibration.npz")
    digits.evaluation.save(folder / "evaluation.npz")


def run_demo(folder: Path, say: Callable[[str], None]) -> DemoResult:
    """Run the whole workflow in `folder` and return the measurements.

    Args:
        say: called with each line of output.

    Raises:
        EdgeqError: a step failed; the results so far are in the folder.
    """
    from edgeq.testing.loopback import loopback_device

    model_side.check_extras()
    folder = prepare(folder.resolve())
    log = StepLog(say=say)
    with log.step("train", "train a small CNN on 900 handwritten digits") as result:
        digits = load_digits()
        model_side.train(folder)
        write_data(folder, digits)
        result(f"digits.keras; {len(digits.evaluation.x)} digits held out for evaluation")
    with log.step("blueprint", "write and check the blueprint") as result:
        path = folder / "blueprint.toml"
        path.write_text(BLUEPRINT, encoding="utf-8")
        blueprint = load_blueprint(path)
        result(limits_line(blueprint.limits))
    with log.step("convert", "convert to float32 (the reference), float16 and full-integer int8") as result:
        files = model_side.convert_all(folder, blueprint)
        result(", ".join(f"{name} {format_size(file.stat().st_size)}" for name, file in files.items()))
    with log.step("evaluate", "evaluate every variant against float32") as result:
        baseline, variants = model_side.evaluate_all(files, blueprint)
        result(f"float32: accuracy {format_percent(baseline.accuracy or 0)}")
        for variant in variants:
            result(variant_line(variant))
    with log.step("select", "select by the blueprint") as result, Store.open(folder) as store:
        selection = select(variants, baseline=baseline, blueprint=blueprint, store=store)
        chosen = require_chosen(selection, subject="blueprint.toml").variant
        result(f"{chosen.name}: the best by {', '.join(blueprint.prefer)} that fails no limit")
    with log.step("bundle", "bundle the chosen variant, and another one as its predecessor") as result:
        before = next(variant for variant in variants if variant.name != chosen.name)
        first, second = (
            model_side.bundle(folder, variant, blueprint, counter=number)
            for number, variant in enumerate((before, chosen), start=1)
        )
        result(f"{chosen.name} is release {second.release[:12]}, {format_size(second.size_bytes)}")
    with Store.open(folder) as store, ExitStack() as stack:
        with log.step("emulate", "start a loopback device: a real SSH server in its own process") as result:
            emulated = stack.enter_context(loopback_device(folder / "device"))
            result(f"{emulated.user}@{emulated.host}:{emulated.port}, {emulated.fingerprint}")
        with log.step("enrol", "enrol it: pin its host key, check its Python, install the agent") as result:
            enrolment = enrol(
                folder,
                name="demo",
                host=emulated.host,
                port=emulated.port,
                user=emulated.user,
                identity=emulated.identity,
                expected_fingerprint=emulated.fingerprint,
            )
            device, facts = enrolment.device, enrolment.facts
            result(f"Python {facts.python} on {facts.machine}, {format_size(facts.free_bytes)} free")
        with log.step("deploy", "deploy both releases, each with its runtime and health check") as result:
            deploys = [
                device_side.deploy(device, bundle, workspace=folder, store=store)
                for bundle in (first, second)
            ]
            for deploy in deploys:
                result(deploy_line(deploy))
        with log.step("bench", "benchmark in a fresh process on the device") as result:
            with open_agent(device) as client:
                bench = measure(client, second.model, device=device.name, store=store)
            result(bench_line(bench))
        with log.step("normal", "run normal traffic through the device, collect, monitor") as result:
            x = digits.traffic.x
            normal, _ = device_side.traffic(device, second, digits.traffic, x=x, store=store)
            result(traffic_line(normal, alpha=device_side.ALPHA))
        with log.step("shifted", "run the same digits through a foggy lens, collect, monitor") as result:
            fogged = with_fog(x)
            shifted, _ = device_side.traffic(device, second, digits.traffic, x=fogged, store=store)
            result(traffic_line(shifted, alpha=device_side.ALPHA))
            with open_agent(device) as client:
                again = collect(client, device.name, store=store)
            result(f"collected again: {again.new} new windows")
        with log.step("rollback", "roll back, and write the report") as result:
            with open_agent(device) as client:
                back = client.request(Activation, "rollback", {"model": second.model}, deadline_s=120)
            result(f"release {back.release[:12]} is active again ({before.name})")
            report = write_report(folder / "report.html", build_view(store, title="The digits demo"))
            result(f"{report.name}, {format_size(report.stat().st_size)}")
        # Its server ends here: an entry that never answers would be in the way of `--on all`.
        Inventory.load(folder).remove(device.name)
        outcome = DemoResult(
            baseline=baseline,
            variants=variants,
            chosen=chosen.name,
            release=second.release,
            bundle_size_bytes=second.size_bytes,
            device={"python": facts.python, "machine": facts.machine, "fingerprint": enrolment.fingerprint},
            deploys=deploys,
            bench=bench.document,
            alpha=device_side.ALPHA,
            normal=normal,
            shifted=shifted,
            collected_again=again.new,
            rolled_back_to=back.release,
            seconds_by_step=log.seconds,
            report=report,
        )
    return outcome
