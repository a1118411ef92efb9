"""The content of a run's page: sentences, tables and figures by section, without markup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from edgeq.conversion.lineage import FileRecord, Lineage
from edgeq.pipeline import stopping
from edgeq.pipeline.phases import TITLES
from edgeq.pipeline.result import RunResult
from edgeq.report.vector import Drawing
from edgeq.report.view import Level, Table, VerdictLine
from edgeq.selection import Candidate, Gate
from edgeq.units import (
    format_duration,
    format_limit,
    format_percent,
    format_size,
)

_OF_DEVICES = frozenset({"latency_p95_ns_max", "memory_peak_bytes_max", "energy_nj_max"})
OUTCOMES = {True: "holds", False: "FAILS", None: "not measured yet"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of the page with a heading; what it lacks is empty."""

    id: str
    title: str
    sentences: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Drawing, ...] = ()


def verdicts(result: RunResult) -> tuple[VerdictLine, ...]:
    """Return the sentences at the top: the verdict first, then what qualifies it, or what to try next."""
    notes = (VerdictLine(level=Level.NOTE, text=_sentence(text)) for text in result.notes)
    return (*_judged(result), *notes)


def _judged(result: RunResult) -> tuple[VerdictLine, ...]:
    chosen = result.chosen
    if chosen is None:
        lines = [VerdictLine(level=Level.BAD, text=_sentence(result.verdict))]
        return (*lines, VerdictLine(level=Level.NOTE, text=f"Next: {result.advice}."))
    proven = stopping.is_proven(chosen)
    lines = [VerdictLine(level=Level.OK if proven else Level.NOTE, text=_sentence(result.verdict))]
    if doubtful := [gate.key for gate in chosen.gates if gate.holds and not gate.shown]:
        text = f"These limits hold, but not beyond the sampling error of the data: {', '.join(doubtful)}."
        lines.append(VerdictLine(level=Level.NOTE, text=text))
    if chosen.variant.metrics.useless is not None:
        lines.append(
            VerdictLine(level=Level.BAD, text=f"The model is useless: {chosen.variant.metrics.useless}.")
        )
    return tuple(lines)


def _sentence(text: str) -> str:
    """Return a text with a full stop; its first word may be a name, whose letters stay as they are."""
    return text if text.endswith(".") else f"{text}."


def gates_section(result: RunResult) -> Section:
    """Return the limits of the chosen candidate, or of the nearest one where none is chosen."""
    candidate = result.chosen or result.nearest
    if candidate is None or not candidate.gates:
        why = "The blueprint states no limit." if candidate else "There is no candidate to judge."
        return Section(id="limits", title="Limits", sentences=(why,))
    what = "the chosen model" if result.chosen else "the nearest candidate"
    table = Table(
        id="gates",
        title=f"Limits of {candidate.variant.name}, {what}",
        headings=("limit", "required", "measured", "95 % interval", "outcome"),
        rows=tuple(gate_row(gate) for gate in candidate.gates),
        numeric=(1, 2, 3),
        note=_note_on_samples(candidate),
    )
    return Section(
        id="limits", title="Limits", sentences=_on_this_machine(result, candidate), tables=(table,)
    )


def _on_this_machine(result: RunResult, candidate: Candidate) -> tuple[str, ...]:
    """Return what to say where limits of a device were judged by this machine."""
    judged = [gate.key for gate in candidate.gates if gate.name in _OF_DEVICES and gate.value is not None]
    if not judged or result.targets[0].name:
        return ()
    return (f"Judged by figures of this machine, which do not prove it for a device: {', '.join(judged)}.",)


def gate_row(gate: Gate) -> tuple[str, ...]:
    """Return (limit, required, measured, interval, outcome) of a gate."""
    bound = "at most" if gate.name.endswith("_max") else "at least"
    outcome = OUTCOMES[gate.holds]
    if gate.holds and not gate.shown:
        outcome = "holds, within the sampling error"
    ends = None if gate.ci95 is None else [format_limit(gate.name, end) for end in gate.ci95]
    return (
        gate.key,
        f"{bound} {gate.written}",
        "-" if gate.value is None else _shown(gate.name, gate.value),
        "-" if ends is None else " to ".join(ends),
        outcome,
    )


def _shown(name: str, value: float) -> str:
    return decibels(value) if "_db_" in name else format_limit(name, value)


def _note_on_samples(candidate: Candidate) -> str:
    metrics = candidate.variant.metrics
    count = f"{metrics.samples} samples"
    if metrics.smallest_drop is None:
        return f"Evaluated on {count}."
    points = f"{100 * metrics.smallest_drop:.1f} points"
    return f"Evaluated on {count}. The smallest drop of accuracy that so many can show is {points}."


def candidates_section(result: RunResult) -> Section:
    """Return the table of all candidates, best first."""
    return Section(id="candidates", title="Candidates", tables=(candidates_table(result),))


def candidates_table(result: RunResult) -> Table:
    """Return all candidates with their figures, in the order of the selection."""
    places = [f"p50 (p95) on {target.name or 'this machine'}" for target in result.targets]
    headings = ("candidate", "made by", "size", *places, "accuracy", "change", "agreement", "worst SQNR")
    return Table(
        id="all-candidates",
        title="All candidates, in the blueprint's order of preference",
        headings=(*headings, "Pareto front", "limits"),
        rows=tuple(_candidate_row(result, each) for each in result.selection.candidates),
        numeric=tuple(range(2, len(headings))),
        note="Change, agreement and SQNR are relative to the float model on the same samples; change is in "
        "points of accuracy, with its 95 % interval. The front is over size, accuracy and worst SQNR. "
        "A dash means that the value was not measured.",
    )


def _candidate_row(result: RunResult, candidate: Candidate) -> tuple[str, ...]:
    variant, metrics = candidate.variant, candidate.variant.metrics
    built = next(each for each in result.built if each.name == variant.name)
    measured = [target.latencies.get(variant.sha256) for target in result.targets]
    is_chosen = result.chosen is not None and result.chosen.variant.name == variant.name
    return (
        f"{variant.name} (chosen)" if is_chosen else variant.name,
        built.family,
        format_size(variant.size_bytes),
        *(
            "-" if each is None else f"{format_duration(each.p50_ns)} ({format_duration(each.p95_ns)})"
            for each in measured
        ),
        share(metrics.accuracy),
        change(metrics.accuracy_drop, metrics.accuracy_drop_ci95),
        share(metrics.agreement),
        "-" if metrics.worst_sqnr_db is None else decibels(metrics.worst_sqnr_db),
        "yes" if candidate.on_front else "no",
        candidate.limits_text,
    )


def share(value: float | None, ends: tuple[float, float] | None = None) -> str:
    """Return a share as percent with its interval in brackets; a dash without a share."""
    if value is None or ends is None:
        return "-" if value is None else format_percent(value)
    return f"{format_percent(value)} ({100 * ends[0]:.1f} to {100 * ends[1]:.1f})"


def change(drop: float | None, ends: tuple[float, float] | None) -> str:
    """Return a drop of a share as a change in points, with its interval: negative where the share fell."""
    if drop is None:
        return "-"
    points = f"{-100 * drop + 0.0:+.1f}"
    if ends is None:
        return points
    return f"{points} ({-100 * ends[1] + 0.0:+.1f} to {-100 * ends[0] + 0.0:+.1f})"


def decibels(value: float) -> str:
    """Return a ratio in dB as text; an infinite one means equal outputs."""
    return "equal outputs" if value == float("inf") else f"{value:.1f} dB"


def skipped_section(result: RunResult) -> Section | None:
    """Return the phases that were left out, with the reasons; None without any."""
    if not result.skipped:
        return None
    table = Table(
        id="skipped-phases",
        title="Phases that were left out",
        headings=("phase", "what it tries", "reason"),
        rows=tuple((each.phase.value, TITLES[each.phase], each.reason) for each in result.skipped),
    )
    return Section(id="skipped", title="Left out", tables=(table,))


def refused_section(result: RunResult) -> Section | None:
    """Return the candidates that were not built, with the reasons; None without any."""
    refused = [each for each in result.built if each.variant is None]
    if not refused:
        return None
    table = Table(
        id="refused-candidates",
        title="Candidates that were not built",
        headings=("candidate", "made by", "reason"),
        rows=tuple((each.name, each.family, each.problem) for each in refused),
    )
    return Section(id="refused", title="Not built", tables=(table,))


def provenance_section(result: RunResult) -> Section:
    """Return what the chosen file was made from, with digests; of the run alone where no file is chosen."""
    blueprint, lineage = result.blueprint, result.lineage()
    rows = [("blueprint", blueprint.name, blueprint.digest), ("float model", "", result.baseline.sha256)]
    if lineage is None:
        rows += [("source", blueprint.source.name, ""), ("evaluation data", blueprint.evaluation.name, "")]
        rows += [("seed", str(blueprint.budget.seed), "")]
    else:
        rows += _lineage_rows(lineage)
    steps = result.reused + result.done
    table = Table(
        id="files",
        title="Inputs, settings and tools",
        headings=("what", "name or value", "SHA-256"),
        rows=tuple(rows),
    )
    took = f"{steps} steps, of which {result.reused} were cached, in {format_duration(1e9 * result.seconds)}."
    return Section(id="provenance", title="Provenance", sentences=(took,), tables=(table,))


def _lineage_rows(lineage: Lineage) -> list[tuple[str, str, str]]:
    rows = [_file_row("chosen file", lineage.output), _file_row("source", lineage.source)]
    rows += [_file_row(f"{name} data", record) for name, record in lineage.data.items()]
    if lineage.chosen_by is not None:
        rows.append(_file_row("evaluation data", lineage.chosen_by.evaluation))
    settings = {name: value for name, value in lineage.recipe.items() if value not in (None, "", [], {})}
    return [
        *rows,
        ("recipe", _pairs(list(settings.items())), lineage.recipe_sha256),
        ("seed", str(lineage.seed), ""),
        ("quantized by", lineage.backend, ""),
        ("tools", _pairs(sorted(lineage.tools.items())), ""),
        ("machine", _pairs(sorted(lineage.environment.items())), ""),
    ]


def _file_row(what: str, record: FileRecord) -> tuple[str, str, str]:
    # The page goes to others, whom the folders of this machine do not concern.
    name = "" if record.path is None else f"{PurePath(record.path).name}, "
    return (what, f"{name}{format_size(record.size_bytes)}", record.sha256)


def _pairs(items: Sequence[tuple[str, object]]) -> str:
    return ", ".join(f"{name} {value}" for name, value in items)
