"""Fix the open dimensions of a source's inputs: the batch is one, and the user gives the others."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from edgeq_converters.errors import ConverterError
from edgeq_converters.sources.types import SourceOptions

Sizes = Sequence[int | None] | None


def fixed_shape(
    name: str, sizes: Sizes, options: SourceOptions, *, batch_is_first: bool, subject: str
) -> tuple[int, ...]:
    """Return an input's shape without open dimensions.

    An open first axis is the batch and becomes one. Where the input has only this axis and the source does
    not say that it is the batch, it may as well be the length of a waveform, so the user must say it.

    Args:
        sizes: None for an open dimension; None for an unknown number of dimensions.
        batch_is_first: whether the source says that the first axis is the batch.

    Raises:
        ConverterError: EQ306 a dimension stays open, or the given shape contradicts the source.
    """
    given = dict(options.shapes).get(name)
    if given is not None:
        _require_compatible(name, sizes, given, subject)
        return given
    if sizes is None:
        raise _open(name, "an unknown number of dimensions", f"{name}=1,N", subject)
    if list(sizes) == [None] and not batch_is_first:
        raise ConverterError(
            "EQ306",
            subject,
            f"the only dimension of input `{name}` is open: it may be the batch or the length of a signal",
            expected="its size",
            got="(?)",
            hint=f"--shape {name}=LENGTH for a signal, --shape {name}=1 for one value a sample",
        )
    fixed = [1 if index == 0 and size is None else size for index, size in enumerate(sizes)]
    if None in fixed:
        example = ",".join("N" if size is None else str(size) for size in fixed)
        raise _open(name, _text(sizes), f"{name}={example}", subject)
    return tuple(size for size in fixed if size is not None)


def require_known_inputs(options: SourceOptions, names: Collection[str], *, subject: str) -> None:
    """Check that the user's shapes are of inputs that the source has.

    Raises:
        ConverterError: EQ306 naming the first that is not.
    """
    for name, _ in options.shapes:
        if name not in names:
            raise ConverterError(
                "EQ306",
                subject,
                f"the model has no input `{name}`, whose shape is given",
                expected=f"one of {', '.join(names)}",
                hint=f"--shape {next(iter(names), 'INPUT')}=SIZES",
            )


def _require_compatible(name: str, sizes: Sizes, given: Sequence[int], subject: str) -> None:
    if sizes is None:
        return
    if len(sizes) != len(given) or any(
        size not in (None, new) for size, new in zip(sizes, given, strict=True)
    ):
        raise ConverterError(
            "EQ306",
            subject,
            f"the shape given for input `{name}` is not one that the model takes",
            expected=_text(sizes),
            got=_text(given),
            hint="only open dimensions, shown as ?, can be chosen",
        )


def _open(name: str, got: str, example: str, subject: str) -> ConverterError:
    return ConverterError(
        "EQ306",
        subject,
        f"input `{name}` has open dimensions besides the batch",
        expected="fixed sizes",
        got=got,
        hint=f"--shape {example}, with a number for each N",
    )


def _text(sizes: Sequence[int | None]) -> str:
    return f"({', '.join('?' if size is None else str(size) for size in sizes)})"
