"""Choose one of a source's signatures, and cut a .tflite down to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgeq_converters.errors import ConverterError
from edgeq_converters.graph.edit import Editor
from edgeq_converters.graph.model import Model

_USUAL = "serving_default"


def choose(names: Sequence[str], asked: str, *, subject: str) -> tuple[str, tuple[str, ...]]:
    """Return (the signature to convert, a note about the others).

    Without a choice of the user it is the only one, or `serving_default`.

    Args:
        names: of the signatures that the source has; at least one.
        asked: the user's choice; empty for none.

    Raises:
        ConverterError: EQ333 the source does not have it, or it has several and none is the usual one.
    """
    if asked and asked not in names:
        raise ConverterError(
            "EQ333",
            subject,
            "the model has no such signature",
            expected=f"one of {', '.join(names)}",
            got=asked,
            hint=f"--signature {_USUAL if _USUAL in names else names[0]}",
        )
    if not asked and len(names) > 1 and _USUAL not in names:
        raise ConverterError(
            "EQ333",
            subject,
            f"the model has {len(names)} signatures",
            expected="the name of one",
            got=", ".join(names),
            hint=f"--signature {names[0]}",
        )
    chosen = asked or (_USUAL if _USUAL in names else names[0])
    others = [name for name in names if name != chosen]
    note = (
        f"only the signature `{chosen}` was converted; --signature NAME converts another: {', '.join(others)}"
    )
    return chosen, (note,) if others and not asked else ()


def only(model: Model, asked: str) -> tuple[Model, tuple[str, ...]]:
    """Return (a .tflite with one signature, a note); the model itself where it has no other.

    Raises:
        ConverterError: as `choose`.
    """
    names = [signature.signatureKey.decode() for signature in model.parsed.signatureDefs or []]
    graphs = {int(signature.subgraphIndex) for signature in model.parsed.signatureDefs or []}
    if not names and asked:
        raise ConverterError(
            "EQ333", model.subject, "the .tflite has no signatures", got=asked, hint="leave --signature out"
        )
    if len(names) < 2:
        return model, ()
    chosen, notes = choose(names, asked, subject=model.subject)
    editor = Editor(model)
    signature = next(each for each in editor.parsed.signatureDefs if each.signatureKey.decode() == chosen)
    if len(graphs) > 1:
        _keep_graph(editor.parsed, int(signature.subgraphIndex))
        signature.subgraphIndex = 0
    editor.parsed.signatureDefs = [signature]
    # The main graph's own lists decide the order; a signature of a graph may leave some of them out.
    graph = editor.parsed.subgraphs[0]
    for attribute, entries in (("inputs", signature.inputs), ("outputs", signature.outputs)):
        named = [int(entry.tensorIndex) for entry in entries or []]
        kept = [int(index) for index in getattr(graph, attribute)]
        if attribute == "outputs":
            setattr(graph, attribute, [index for index in kept if index in named] or named)
    return editor.pack(), notes


_CALLED = (
    "thenSubgraphIndex", "elseSubgraphIndex", "condSubgraphIndex", "bodySubgraphIndex", "initSubgraphIndex",
    "subgraph", "decompositionSubgraphIndex", "comparatorSubgraphIndex", "updateComputationSubgraphIndex",
)  # fmt: skip


def _keep_graph(parsed: Any, first: int) -> None:
    """Keep a graph, which becomes the main one, and the graphs that its operations call."""
    kept = [first]
    for number in kept:
        for operator in parsed.subgraphs[number].operators:
            for options, field in _calls(operator):
                called = int(getattr(options, field))
                if called not in kept:
                    kept.append(called)
    for number in kept:
        for operator in parsed.subgraphs[number].operators:
            for options, field in _calls(operator):
                setattr(options, field, kept.index(int(getattr(options, field))))
    parsed.subgraphs = [parsed.subgraphs[number] for number in kept]


def _calls(operator: Any) -> list[tuple[Any, str]]:
    return [
        (options, field)
        for options in (operator.builtinOptions, getattr(operator, "builtinOptions2", None))
        for field in _CALLED
        if options is not None and isinstance(called := getattr(options, field, None), int) and called >= 0
    ]
