"""Build recipes from options and files; errors name the option or the key."""

from __future__ import annotations

import difflib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeq.errors import UsageError
from edgeq.files import write_atomic
from edgeq_converters.recipe import Recipe
from edgeq_converters.values import Scheme


def recipe_of(scheme: str | None, *, base: Recipe | None = None, **changes: Any) -> Recipe:
    """Return the scheme's default recipe, or `base`, with the given changes.

    Args:
        changes: keys of the recipe; None keeps the value.

    Raises:
        UsageError: an unknown scheme, or incompatible values.
    """
    if base is None and scheme is None:
        raise UsageError(
            "--scheme", "give a scheme or --recipe", hint=f"add --scheme with one of {', '.join(Scheme)}"
        )
    if base is None:
        base = Recipe(scheme=_scheme(str(scheme)))
    elif scheme is not None and scheme != base.scheme:
        target = _scheme(scheme)
        kept = {base.types.inputs, base.types.outputs} <= set(target.io_types)
        io = base.io if kept else target.io_types[0]
        base = replace(base, scheme=target, io=io)
    given = {key: value for key, value in changes.items() if value is not None}
    try:
        recipe = Recipe.from_dict({**base.to_dict(), **given})
    except ValueError as error:
        raise UsageError("recipe", str(error)) from error
    try:
        recipe.check()
    except ValueError as error:
        key, _, problem = str(error).partition(": ")
        subject = f"recipe: {key}"
        if key in {"io", "calibrator", "backend"} & set(given):
            subject = f"--{key} {given[key]}"
        elif key == "float_ops" and key in given:
            subject = f"--keep-float {' '.join(given[key])}"
        elif key == "allow_float":
            subject = "--allow-float"
        raise UsageError(subject, problem) from error
    return recipe


def checked(recipe: Recipe, *, subject: str) -> Recipe:
    """Return the recipe if its values are compatible.

    Raises:
        UsageError: the subject ends with the invalid key.
    """
    try:
        recipe.check()
    except ValueError as error:
        key, _, problem = str(error).partition(": ")
        raise UsageError(f"{subject}: {key}", problem) from error
    return recipe


def load_recipe(path: Path) -> Recipe:
    """Read a recipe from a JSON file; the output of `edgeq convert --json` is accepted too.

    Raises:
        UsageError: the file cannot be read, or a key is invalid; the message names it.
    """
    try:
        body = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(str(path), f"the recipe cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(
            str(path), f"the recipe is not valid JSON ({error})", hint="write one with --save-recipe"
        ) from error
    if isinstance(body, dict) and isinstance(body.get("recipe"), dict):
        body = body["recipe"]
    if not isinstance(body, dict):
        raise UsageError(str(path), expected="a recipe as a JSON object", got=type(body).__name__)
    try:
        recipe = Recipe.from_dict(body)
    except (ValueError, TypeError) as error:
        raise UsageError(str(path), str(error), hint="write one with --save-recipe") from error
    return checked(recipe, subject=str(path))


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write the recipe as a JSON file that `load_recipe` reads."""
    text = json.dumps(recipe.to_dict(), indent=2, ensure_ascii=False) + "\n"
    try:
        write_atomic(Path(path), text.encode())
    except OSError as error:
        raise UsageError(str(path), f"cannot be written: {error.strerror}") from error


def _scheme(name: str) -> Scheme:
    known = [item.value for item in Scheme]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        raise UsageError(
            "--scheme",
            expected=f"one of {', '.join(known)}",
            got=repr(name),
            hint=f"did you mean {near[0]}?" if near else None,
        )
    return Scheme(name)
