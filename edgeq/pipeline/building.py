"""Build the candidates of a phase, one after the other or side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, as_completed

from edgeq.errors import DataError, ModelError
from edgeq.pipeline.recipes import PlannedCandidate
from edgeq.search.building import BuiltCandidate, CandidateBuilder, CandidateJob, CandidateRecord, build


def build_all(
    builder: CandidateBuilder,
    candidates: Sequence[PlannedCandidate],
    executor: Executor | None,
    *,
    go_on: Callable[[], bool],
) -> Iterator[BuiltCandidate]:
    """Yield each candidate once it is built; those of earlier runs come first.

    A candidate that cannot be built does not end the run. An executor's threads, processes or machines only
    convert and evaluate: this thread writes the records.

    Args:
        executor: None builds one candidate after the other.
        go_on: whether there is time to begin another candidate.

    Raises:
        DataError: the calibration or evaluation data cannot be used by any candidate.
    """
    asked = []
    for each in candidates:
        known = builder.reused(each.name, each.family, each.recipe)
        if known is None:
            asked.append(each)
        else:
            yield known
    if executor is None:
        for each in asked:
            if not go_on():
                return
            yield _one(builder, each, builder.job(each.name, each.recipe), None)
        return
    futures: dict[Future[CandidateRecord], tuple[PlannedCandidate, CandidateJob]] = {}
    for each in asked:
        if go_on():
            job = builder.job(each.name, each.recipe)
            futures[executor.submit(build, job)] = (each, job)
    try:
        for future in as_completed(futures):
            yield _one(builder, *futures[future], future)
    finally:
        # After an error or an interruption, candidates that have not begun would only delay the end.
        for future in futures:
            future.cancel()


def _one(
    builder: CandidateBuilder,
    asked: PlannedCandidate,
    job: CandidateJob,
    future: Future[CandidateRecord] | None,
) -> BuiltCandidate:
    try:
        record = build(job, on_progress=builder.on_progress) if future is None else future.result()
    except (DataError, ModelError) as error:
        if isinstance(error, DataError) and asked.recipe.prune is None:
            raise
        return not_built(asked, problem_of(error))
    return builder.recorded(asked.family, job, record)


def not_built(asked: PlannedCandidate, problem: str) -> BuiltCandidate:
    """Return a candidate that could not be built."""
    return BuiltCandidate(
        name=asked.name,
        family=asked.family,
        recipe=asked.recipe,
        variant=None,
        problem=problem,
        reused=False,
    )


def problem_of(error: DataError | ModelError) -> str:
    """Return why a candidate could not be built."""
    return f"{error.reported_code}: {error.message}"
