"""The child process: `python -m edgeq_converters.worker job.json`; TensorFlow and LiteRT run in here only.

Standard output carries JSON lines: {"event": "step"|"advance"|"result"|"error", ...}. What the libraries
print goes to standard error, which the parent keeps in a file.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from edgeq_converters.errors import ConverterError


def main(argv: list[str]) -> int:
    """Do the job of a file and write what came of it; the exit status is 0 for a result, 1 for an error."""
    # Sums of one thread are the same on any machine, and many small products are faster without waiting.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    events = _own_stdout()
    job = json.loads(Path(argv[0]).read_text(encoding="utf-8"))

    def send(event: str, **body: Any) -> None:
        events.write(json.dumps({"event": event, **body}) + "\n")
        events.flush()

    try:
        result = _VERBS[job["verb"]](job, send)
    except ConverterError as error:
        send("error", error=error.to_dict())
        return 1
    except ModuleNotFoundError as error:
        from edgeq_converters.data.sample_files import missing

        send("error", error=missing(error.name or "a library").to_dict())
        return 1
    send("result", result=result)
    return 0


def _own_stdout() -> IO[str]:
    # C++ code prints where it likes; the events keep the real standard output to themselves.
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return events


Send = Callable[..., None]


def _stepper(send: Send) -> Callable[[str, int], Callable[[int], None]]:
    def step(what: str, total: int) -> Callable[[int], None]:
        send("step", what=what, total=total)
        return lambda amount: send("advance", amount=amount)

    return step


def _convert(job: Mapping[str, Any], send: Send) -> dict[str, Any]:
    from edgeq_converters.recipe import Recipe
    from edgeq_converters.values import Scheme
    from edgeq_converters.worker.jobs import conversion as steps
    from edgeq_converters.worker.jobs import edgetpu

    recipe = Recipe.from_dict(job["recipe"])
    source, output, workdir = Path(job["source"]), Path(job["output"]), Path(job["workdir"])
    data = Path(job["data"]) if job["data"] else None
    histograms = Path(job["histograms"]) if job.get("histograms") else None

    def by(used: Recipe) -> Callable[[Path, Path, Path], steps.Converted]:
        return lambda model, file, folder: steps.convert(
            model,
            file,
            recipe=used,
            data=data,
            histograms=histograms,
            workdir=folder,
            step=_stepper(send),
        )

    pruning: dict[str, Any] | None = None
    said: tuple[str, ...] = ()
    if recipe.prune is None:
        done = by(recipe)(source, output, workdir)
    else:
        from edgeq_converters.training.pruning import conversion
        from edgeq_converters.training.pruning.job import PruningJob

        done, pruning, said = conversion.convert(
            source,
            output,
            job=PruningJob.of(recipe, job),
            by_recipe=by(recipe),
            to_float=by(Recipe(scheme=Scheme.FLOAT32, io="float32")),
            workdir=workdir,
            step=_stepper(send),
        )
    return {
        "pruning": pruning,
        "info": done.info.to_dict(),
        "backend": done.backend,
        "notes": [*said, *done.notes],
        "parity": done.parity.to_dict() if done.parity else None,
        "edgetpu": edgetpu.summary(output),
        "tools": _tools(done.tools),
    }


def _calibrate(job: Mapping[str, Any], send: Send) -> dict[str, Any]:
    from edgeq_converters.worker.jobs import calibrate

    return calibrate.run(job, _stepper(send))


def _inspect(job: Mapping[str, Any], send: Send) -> dict[str, Any]:
    from edgeq_converters.worker.jobs import conversion as steps

    return {"info": steps.inspect(Path(job["model"])).to_dict()}


def _run(job: Mapping[str, Any], send: Send) -> dict[str, Any]:
    import numpy as np

    from edgeq_converters.worker.jobs import evaluate

    done = evaluate.run_models(
        [Path(model) for model in job["models"]], Path(job["data"]), step=_stepper(send)
    )
    arrays = {f"input_{i}": array for i, array in enumerate(done.inputs)}
    for number, run in enumerate(done.runs):
        arrays.update({f"run_{number}_output_{i}": array for i, array in enumerate(run.outputs)})
    if done.labels is not None:
        arrays["y"] = done.labels
    np.savez(Path(job["arrays"]), **arrays)  # type: ignore[arg-type] # its stub takes allow_pickle there
    return {"infos": [run.info.to_dict() for run in done.runs], "notes": list(done.notes)}


def _sensitivity(job: Mapping[str, Any], send: Send) -> dict[str, Any]:
    from edgeq_converters.worker.jobs import sensitivity as sensitivity_job

    return sensitivity_job.run(job, _stepper(send))


def _islands(job: Mapping[str, Any], send: Send) -> dict[str, Any]:
    from edgeq_converters.worker.jobs import sensitivity as sensitivity_job

    return sensitivity_job.run_walk(job, _stepper(send))


def _latency(job: Mapping[str, Any], send: Send) -> dict[str, Any]:
    from edgeq_converters.worker.jobs import latency

    models = [Path(model) for model in job["models"]]
    advance = _stepper(send)("measure latency in turns", len(models) * job["rounds"])
    found = latency.measure(models, rounds=job["rounds"], seed=job["seed"], advance=advance)
    return {"latencies": latency.to_dicts(found)}


def _edgetpu(job: Mapping[str, Any], send: Send) -> dict[str, Any]:
    from edgeq_converters.worker.jobs import edgetpu

    return edgetpu.run(job)


def _tune(job: Mapping[str, Any], send: Send) -> dict[str, Any]:
    from edgeq_converters.recipe import Recipe
    from edgeq_converters.training.qat import train
    from edgeq_converters.training.qat.job import TuningJob
    from edgeq_converters.worker.jobs import conversion as steps

    step = _stepper(send)

    def convert(source: Path, output: Path, recipe: Recipe, data: Path, folder: Path) -> steps.Converted:
        return steps.convert(source, output, recipe=recipe, data=data, workdir=folder, step=step)

    report = train.tune(
        Path(job["source"]),
        Path(job["output"]),
        job=TuningJob.of(job),
        convert=convert,
        workdir=Path(job["workdir"]),
        step=step,
    )
    return {"report": report.to_dict(), "tools": _tools(())}


def _tools(more: Sequence[str]) -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("tensorflow", "tf_keras", "keras", "ai-edge-litert", "litert-quantizer", "numpy", *more):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # tools that are not installed took no part
    return found


_VERBS = {
    "convert": _convert,
    "calibrate": _calibrate,
    "inspect": _inspect,
    "run": _run,
    "sensitivity": _sensitivity,
    "islands": _islands,
    "latency": _latency,
    "edgetpu": _edgetpu,
    "tune": _tune,
}

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
