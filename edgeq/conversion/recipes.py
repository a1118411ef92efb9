"""Recipes from options and from files, with errors that name the option or the key."""

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
    """Return a recipe of the given options: of the scheme's defaults, or of `base` where one is given.

    Args:
        changes: keys of the recipe; None leaves a key as it is.

    Raises:
        UsageError: an unknown scheme, or values that do not go together.
    """
    if base is None and scheme is None:
        raise UsageError("--scheme", "neither a scheme nor a recipe was given", hint="--scheme int8")
    if base is None:
        base = Recipe(scheme=_scheme(str(scheme)))
    elif scheme is not None and scheme != base.scheme:
        wanted = _scheme(scheme)
        keeps = base.io in wanted.io_types
        base = replace(base, scheme=wanted, io=base.io if keeps else wanted.io_types[0])
    given = {key: value for key, value in changes.items() if value is not None}
    try:
        recipe = Recipe.from_dict({**base.to_dict(), **given})
    except ValueError as error:
        raise UsageError("recipe", str(error)) from error
    try:
        recipe.check()
    except ValueError as error:
        key, _, problem = str(error).partition(": ")
        named = (
            f"--{key} {given[key]}"
            if key in {"io", "calibrator", "backend"} & set(given)
            else f"recipe: {key}"
        )
        raise UsageError(named, problem) from error
    return recipe


def checked(recipe: Recipe, *, subject: str) -> Recipe:
    """Return the recipe if its values go together.

    Raises:
        UsageError: starts with the key that is wrong.
    """
    try:
        recipe.check()
    except ValueError as error:
        key, _, problem = str(error).partition(": ")
        raise UsageError(f"{subject}: {key}", problem) from error
    return recipe


def load_recipe(path: Path) -> Recipe:
    """Return the recipe of a JSON file, also of what `edgeq convert --json` printed.

    Raises:
        UsageError: it cannot be read, or a key of it is wrong, which is named.
    """
    try:
        body = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(str(path), f"the recipe cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(
            str(path), f"the recipe is no JSON ({error})", hint="write one by --save-recipe"
        ) from error
    if isinstance(body, dict) and isinstance(body.get("recipe"), dict):
        body = body["recipe"]
    if not isinstance(body, dict):
        raise UsageError(str(path), expected="a recipe as a JSON object", got=type(body).__name__)
    try:
        recipe = Recipe.from_dict(body)
    except (ValueError, TypeError) as error:
        raise UsageError(str(path), str(error), hint="write one by --save-recipe") from error
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
