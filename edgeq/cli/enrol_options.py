"""Options of the commands that enrol devices, with one default for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click

from edgeq.errors import UsageError
from edgeq.values import DeviceKind, TransportKind

label_option = click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="KEY=VALUE",
    help="Label for selections such as `--to label:KEY=VALUE`; repeatable.",
)
# Each command has its own help for these: `@python_option(help="...")`.
kind_option = partial(
    click.option,
    "--kind",
    type=click.Choice([kind.value for kind in DeviceKind]),
    default="linux",
    show_default=True,
)
identity_option = partial(click.option, "--identity", type=click.Path(path_type=Path, dir_okay=False))
python_option = partial(click.option, "--python", default="python3", show_default=True, metavar="PROGRAM")
home_option = partial(click.option, "--home", default=".edgeq", show_default=True, metavar="FOLDER")
publisher_option = partial(click.option, "--publisher", "publishers", multiple=True, metavar="KEY")
transport_option = partial(
    click.option,
    "--transport",
    type=click.Choice([kind.value for kind in TransportKind]),
    default="paramiko",
    show_default=True,
)


def parse_labels(texts: Sequence[str]) -> dict[str, str]:
    """Return the labels of the option's values.

    Raises:
        UsageError: a value is not KEY=VALUE.
    """
    from edgeq.fleet.names import check_name

    labels = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or not value:
            raise UsageError("--label", expected="KEY=VALUE", got=repr(text))
        labels[check_name(key, what="label")] = value
    return labels
