"""The demo's walk: every step in order, timed, with one line of what came of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from edgeq.benchmark import bench as measure
from edgeq.blueprint import load_blueprint
from edgeq.collector import collect
from edgeq.demo import field as device_side
from edgeq.demo import model as model_side
from edgeq.demo.digits import Digits, load_digits, through_a_bad_lens
from edgeq.demo.folder import BLUEPRINT, prepare
from edgeq.demo.lines import Teller, bench_line, deploy_line, limits_line, traffic_line, variant_line
from edgeq.demo.result import DemoResult
from edgeq.fleet.connect import open_agent
from edgeq.fleet.enrol import enrol
from edgeq.report import build_view, write_report
from edgeq.selection import require_chosen, to_document
from edgeq.store import Store
from edgeq.units import format_percent, format_size


def write_data(folder: Path, digits: Digits) -> None:
    """Write the sets that the blueprint names, and what the model was trained on for those who go on."""
    digits.training.save(folder / "training.npz")
    digits.calibration.save(folder / "calibration.npz")
    digits.evaluation.save(folder / "evaluation.npz")


def walk(folder: Path, say: Callable[[str], None]) -> DemoResult:
    """Walk the whole path in `folder` and return what was measured.

    Raises:
        EdgeqError: a step failed; what it did until then is in the folder.
    """
    from edgeq.testing.loopback import loopback_device

    model_side.check_extras()
    folder = prepare(folder.resolve())
    tell = Teller(say=say)
    with tell.step("train", "train a small CNN on 900 handwritten digits") as done:
        digits = load_digits()
        model_side.train(folder)
        write_data(folder, digits)
        done(f"digits.keras; {len(digits.evaluation.x)} digits held out for evaluation")
    with tell.step("blueprint", "write and check the blueprint") as done:
        path = folder / "blueprint.toml"
        path.write_text(BLUEPRINT, encoding="utf-8")
        blueprint = load_blueprint(path)
        done(limits_line(blueprint.limits.stated()))
    with tell.step("convert", "convert to float32 (the reference), float16 and full-integer int8") as done:
        files = model_side.convert_all(folder, blueprint)
        done(", ".join(f"{name} {format_size(file.stat().st_size)}" for name, file in files.items()))
    with tell.step("evaluate", "evaluate every variant against float32") as done:
        baseline, variants = model_side.evaluate_all(files, blueprint)
        done(f"float32: accuracy {format_percent(baseline.accuracy or 0)}")
        for variant in variants:
            done(variant_line(variant))
    with tell.step("select", "select by the blueprint") as done:
        selection = model_side.choose(variants, baseline, blueprint)
        chosen = require_chosen(selection, subject="blueprint.toml").variant
        done(f"{chosen.name}: the first by {', '.join(blueprint.prefer)} that fails no limit")
    with tell.step("bundle", "bundle the chosen variant, and another one as the release before it") as done:
        before = next(variant for variant in variants if variant.name != chosen.name)
        first, second = (
            model_side.bundle(folder, variant, blueprint, counter=number)
            for number, variant in enumerate((before, chosen), start=1)
        )
        done(f"{chosen.name} is release {second.release[:12]}, {format_size(second.size_bytes)}")
    with Store.open(folder) as store, ExitStack() as stack:
        store.record_run("select", blueprint.name, to_document(selection))
        with tell.step("emulate", "start a loopback device: a real SSH server in its own process") as done:
            emulated = stack.enter_context(loopback_device(folder / "device"))
            done(f"{emulated.user}@{emulated.host}:{emulated.port}, {emulated.fingerprint}")
        with tell.step("enrol", "enrol it: pin its host key, prove its Python, place the agent") as done:
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
            done(f"Python {facts.python} on {facts.machine}, {format_size(facts.free_bytes)} free")
        with tell.step("deploy", "deploy both releases, each with its own runtime and health check") as done:
            deploys = [
                device_side.deploy(device, bundle, workspace=folder, store=store)
                for bundle in (first, second)
            ]
            for deploy in deploys:
                done(deploy_line(deploy))
        with tell.step("bench", "benchmark in a fresh process on the device") as done:
            with open_agent(device) as client:
                bench = measure(client, second.model, device=device.name)
            store.record_bench(device.name, bench.document)
            done(bench_line(bench))
        with tell.step("normal", "run normal traffic through the device, collect, judge") as done:
            x = digits.traffic.x
            normal, _ = device_side.traffic(device, second, digits.traffic, x=x, store=store)
            done(traffic_line(normal, alpha=device_side.ALPHA))
        with tell.step("shifted", "run the same digits through a fogged lens, collect, judge") as done:
            fogged = through_a_bad_lens(x)
            shifted, _ = device_side.traffic(device, second, digits.traffic, x=fogged, store=store)
            done(traffic_line(shifted, alpha=device_side.ALPHA))
            with open_agent(device) as client:
                again = collect(client, device.name, store=store)
            done(f"collected again: {again.new} new windows")
        with tell.step("rollback", "roll back, and write the report") as done:
            with open_agent(device) as client:
                back = client.call("rollback", {"model": second.model}, deadline_s=120)
            done(f"release {str(back['release'])[:12]} serves again ({before.name})")
            report = write_report(folder / "report.html", build_view(store, title="The digits demo"))
            done(f"{report.name}, {format_size(report.stat().st_size)}")
        result = DemoResult(
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
            rolled_back_to=str(back["release"]),
            seconds_by_step=tell.seconds,
            report=report,
        )
    return result
