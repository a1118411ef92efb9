"""Run a blueprint: phases of ever more costly techniques, until a model meets every limit."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgeq.blueprint import Blueprint, Scheme, Task, load_blueprint
from edgeq.converters_client import Progress
from edgeq.errors import DataError, EdgeqError, ModelError
from edgeq.evaluation import Details
from edgeq.kernels import KernelTable, table_for, unsuited
from edgeq.pipeline import recipes, stopping, tuning
from edgeq.pipeline.building import build_all, not_built, problem_of
from edgeq.pipeline.events import CandidateDone, Event, PhaseBegan, PhaseJudged, PhaseSkipped
from edgeq.pipeline.examining import Examiner, needs_details, needs_robustness, worth_examining
from edgeq.pipeline.judging import Target, judge
from edgeq.pipeline.measurable import require_measurable
from edgeq.pipeline.phases import TRAINED_SCHEMES, Phase, planned
from edgeq.pipeline.recipes import PlannedCandidate
from edgeq.pipeline.result import RunResult, SkippedPhase
from edgeq.search import finalists, latencies, steps
from edgeq.search.building import BuiltCandidate, CandidateBuilder
from edgeq.search.latencies import ThisMachine, Timing
from edgeq.search.records import Records, digest_of
from edgeq.selection import Selection
from edgeq.store import Store, recording_store
from edgeq.units import format_duration
from edgeq.values import DeviceKind, Variant

FLOAT_REGIONS = 4
"""How many choices of float regions the phase of mixed precision builds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedTarget:
    """A machine or device that times the candidates, and whose limits apply.

    Attributes:
        name: of the device; empty for this machine.
    """

    timing: Timing
    name: str = ""
    kind: DeviceKind | None = None


def run(
    blueprint: Blueprint | Path | str,
    *,
    workspace: Path = Path("."),
    targets: Sequence[TimedTarget] = (),
    kind: DeviceKind | None = None,
    explore: bool = False,
    executor: Executor | None = None,
    store: Store | None = None,
    on_event: Callable[[Event], None] = lambda _event: None,
    on_progress: Progress | None = None,
) -> RunResult:
    """Find a model that meets a blueprint, and record how.

    Phases of ever more costly techniques run until a candidate meets every limit beyond the sampling error of
    the evaluation data. Every step is recorded under the digests of its inputs, so that an interrupted run
    resumes and a second run repeats no step.

    Args:
        blueprint: or the path of one.
        workspace: the candidates' files are kept below it.
        targets: the devices that the model must suit; none stands for this machine.
        kind: of the devices whose limits apply where no device is named.
        explore: run all phases, for the Pareto front.
        executor: builds the candidates of a phase side by side: threads, processes, or machines that see
            the same files. None builds one after the other.
        store: where to record the steps and the result; None is the store of the workspace.
        on_event: called with what happens.
        on_progress: called with (step, done, total).

    Raises:
        BlueprintError: the blueprint cannot be read, or the data cannot measure one of its limits.
        DataError, ModelError: the data or the float model cannot be used.
        TransportError: a device cannot be reached.
    """
    loaded = blueprint if isinstance(blueprint, Blueprint) else load_blueprint(Path(blueprint))
    # Absolute: a worker of a cluster has another current folder.
    folder = (workspace / ".edgeq" / "runs" / loaded.name).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    given = tuple(targets) or (TimedTarget(timing=ThisMachine(on_progress=on_progress), kind=kind),)
    with recording_store(store, workspace) as opened:
        runner = _Run(
            blueprint=loaded,
            folder=folder,
            store=opened,
            targets=given,
            explore=explore,
            tell=on_event,
            on_progress=on_progress,
            executor=executor,
        )
        result = runner.result()
        opened.record_run("run", loaded.name, result.to_json())
    return result


@dataclass(kw_only=True)
class _Run:
    """One run: what was built and judged so far."""

    blueprint: Blueprint
    folder: Path
    store: Store
    targets: tuple[TimedTarget, ...]
    explore: bool
    tell: Callable[[Event], None]
    on_progress: Progress | None
    executor: Executor | None
    began_s: float = field(default_factory=time.monotonic)
    built: list[BuiltCandidate] = field(default_factory=list)
    timed: tuple[Target, ...] = ()
    skipped: list[SkippedPhase] = field(default_factory=list)
    selection: Selection | None = None
    details: dict[str, Details] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    reused: int = 0
    done: int = 0

    def result(self) -> RunResult:
        """Run all phases that are needed."""
        # Whether the machine of the first target runs a scheme's kernels: one that it lacks is not built. A
        # device that cannot be reached is reported before the work.
        table = table_for(self.targets[0].timing.machine, self.store)
        builder, baseline = steps.prepare(self.blueprint, self.folder, self.store, self.on_progress)
        if baseline.variant is None:
            raise ModelError(str(self.blueprint.source), baseline.problem)
        require_measurable(self.blueprint, baseline.variant.metrics, [target.kind for target in self.targets])
        self.tell(PhaseBegan(phase=Phase.BASELINE, candidates=1))
        self._add(Phase.BASELINE, baseline)
        for each in planned(self.blueprint, self.targets[0].kind)[1:]:
            reason = each.skipped or self._needless(each.phase)
            if reason:
                self.skipped.append(SkippedPhase(phase=each.phase, reason=reason))
                self.tell(PhaseSkipped(phase=each.phase, reason=reason))
                continue
            self._phase(each.phase, builder, table)
            self._judge(each.phase, baseline.variant)
        selection = self.selection or self._judge(Phase.BASELINE, baseline.variant)
        result = self._result(baseline.variant, selection)
        shown = result.chosen or result.nearest
        if shown is None or self.blueprint.task is Task.DETECTION:
            return result
        try:
            details = self._examine(shown.variant, baseline.variant, robustness=True)
        except EdgeqError as error:
            # The model is found: what only explains it may be missing.
            note = f"{shown.variant.name} was not examined: {error.message}"
            return replace(result, notes=(*result.notes, note))
        return replace(result, details=details, reused=self.reused, done=self.done)

    def _result(self, baseline: Variant, selection: Selection) -> RunResult:
        return RunResult(
            blueprint=self.blueprint,
            baseline=baseline,
            built=tuple(self.built),
            selection=selection,
            targets=self.timed,
            skipped=tuple(self.skipped),
            notes=tuple(self.notes),
            reused=self.reused,
            done=self.done,
            seconds=time.monotonic() - self.began_s,
        )

    def _needless(self, phase: Phase) -> str:
        if not self._has_time():
            return f"the budget of {format_duration((self.blueprint.budget.seconds or 0) * 1e9)} is spent"
        if self.explore or self.selection is None:
            return ""
        return stopping.needless(phase, self.selection)

    def _has_time(self) -> bool:
        seconds = self.blueprint.budget.seconds
        return seconds is None or time.monotonic() - self.began_s <= seconds

    def _phase(self, phase: Phase, builder: CandidateBuilder, table: KernelTable | None) -> None:
        kind = self.targets[0].kind
        if phase is Phase.PLAIN:
            self._build_all(phase, builder, table, recipes.plain(self.blueprint, kind))
        elif phase is Phase.CALIBRATION:
            self._build_all(phase, builder, table, recipes.calibrated(self.blueprint, kind))
        elif phase is Phase.MIXED_PRECISION:
            self._mixed(builder)
        elif phase is Phase.PRUNING:
            candidates = recipes.pruned(self.blueprint, kind)
            self._build_all(phase, _from_source(builder), table, candidates)
        else:
            self._tuned(builder)

    def _build_all(
        self,
        phase: Phase,
        builder: CandidateBuilder,
        table: KernelTable | None,
        candidates: Sequence[PlannedCandidate],
    ) -> None:
        self.tell(PhaseBegan(phase=phase, candidates=len(candidates)))
        suited = []
        for each in candidates:
            reason = None if table is None else unsuited(table, each.recipe.scheme)
            if reason is None:
                suited.append(each)
            else:
                self._add(phase, not_built(each, reason), counted=False)
        self._add_all(phase, builder, suited)

    def _add_all(
        self, phase: Phase, builder: CandidateBuilder, candidates: Sequence[PlannedCandidate]
    ) -> None:
        before = len(self.built)
        for candidate in build_all(builder, candidates, self.executor, go_on=self._has_time):
            self._add(phase, candidate)
        missing = len(candidates) - (len(self.built) - before)
        if missing:
            self.notes.append(f"{phase}: no time was left for {missing} of {len(candidates)} candidates")

    def _mixed(self, builder: CandidateBuilder) -> None:
        calibration = self.blueprint.calibration
        if calibration is None:  # a scheme with ranges needs it, and this phase such a scheme
            return
        self.tell(PhaseBegan(phase=Phase.MIXED_PRECISION, candidates=None))
        common = recipes.default_recipe(self.blueprint, Scheme.INT8)
        try:
            regions, reused = steps.measure_regions(
                builder, calibration, common, self.store, self.on_progress
            )
        except ModelError as error:
            asked = PlannedCandidate(name="mixed", family=Phase.MIXED_PRECISION.value, recipe=common)
            self._add(Phase.MIXED_PRECISION, not_built(asked, problem_of(error)), counted=False)
            return
        self._count(reused=reused)
        chosen = finalists.finalists(regions.sets, FLOAT_REGIONS)
        candidates = []
        for choice in chosen:
            name, family, recipe = steps.regions_candidate(choice, regions, common)
            candidates.append(PlannedCandidate(name=name, family=family, recipe=recipe))
        self._add_all(Phase.MIXED_PRECISION, builder, candidates)

    def _tuned(self, builder: CandidateBuilder) -> None:
        kind = self.targets[0].kind
        schemes = [each for each in self.blueprint.schemes_for(kind) if each in TRAINED_SCHEMES]
        self.tell(PhaseBegan(phase=Phase.QAT, candidates=len(schemes)))
        for scheme in schemes:
            if not self._has_time():
                return
            try:
                candidate = tuning.build_tuned(builder, scheme, self.store)
            except (DataError, ModelError) as error:
                recipe = recipes.default_recipe(self.blueprint, scheme)
                asked = PlannedCandidate(name=tuning.name_of(scheme), family=Phase.QAT.value, recipe=recipe)
                candidate = not_built(asked, problem_of(error))
            self._add(Phase.QAT, candidate)

    def _add(self, phase: Phase, candidate: BuiltCandidate, *, counted: bool = True) -> None:
        if counted:
            self._count(reused=candidate.reused)
        self.built.append(candidate)
        variant = candidate.variant
        self.tell(
            CandidateDone(
                phase=phase,
                name=candidate.name,
                reused=candidate.reused,
                problem=candidate.problem,
                size_bytes=None if variant is None else variant.size_bytes,
                accuracy=None if variant is None else variant.metrics.accuracy,
                worst_sqnr_db=None if variant is None else variant.metrics.worst_sqnr_db,
            )
        )

    def _count(self, *, reused: bool) -> None:
        self.reused += reused
        self.done += not reused

    def _judge(self, phase: Phase, baseline: Variant) -> Selection:
        variants = [each.variant for each in self.built if each.variant is not None]
        self.timed = tuple(self._timed(target, variants) for target in self.targets)
        selection = self._selected(variants, baseline)
        kinds = [target.kind for target in self.targets]
        if needs_details(self.blueprint, kinds):
            robustness = needs_robustness(self.blueprint, kinds)
            for variant in worth_examining(selection, self.details):
                self._examine(variant, baseline, robustness=robustness)
            selection = self._selected(variants, baseline)
        self.selection = selection
        chosen = selection.chosen
        self.tell(
            PhaseJudged(
                phase=phase,
                candidates=selection.candidates,
                chosen=None if chosen is None else chosen.variant.name,
                proven=chosen is not None and stopping.is_proven(chosen),
            )
        )
        return selection

    def _selected(self, variants: Sequence[Variant], baseline: Variant) -> Selection:
        return judge(
            variants,
            schemes={each.name: each.recipe.scheme for each in self.built},
            baseline=baseline.metrics,
            blueprint=self.blueprint,
            targets=self.timed,
            details=self.details,
        )

    def _examine(self, variant: Variant, baseline: Variant, *, robustness: bool) -> Details:
        examiner = Examiner.of(self.blueprint, baseline, self.store, self.on_progress)
        details, reused = examiner.details(variant, robustness=robustness)
        self._count(reused=reused)
        self.details[variant.name] = details
        return details

    def _timed(self, target: TimedTarget, variants: Sequence[Variant]) -> Target:
        measured, reused = latencies.timed(
            variants,
            target.timing,
            Records(self.store, latencies.KIND),
            subject=self.blueprint.name,
            say=lambda _text: None,
        )
        self._count(reused=reused)
        return Target(name=target.name, kind=target.kind, latencies=measured)


def _from_source(builder: CandidateBuilder) -> CandidateBuilder:
    """Return the builder of candidates from the blueprint's source, which can be trained."""
    blueprint = builder.blueprint
    digests = {**builder.digests, "source": digest_of(blueprint.source)}
    for name, path in (("training", blueprint.training), ("validation", blueprint.validation)):
        if path is not None:
            digests[name] = digest_of(path)
    return replace(builder, source=blueprint.source, digests=digests)
