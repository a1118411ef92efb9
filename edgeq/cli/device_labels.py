"""The option `--label` of the commands that enrol devices."""

from __future__ import annotations

from collections.abc import Sequence

import click

from edgeq.errors import UsageError

label_option = click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="KEY=VALUE",
    help="Label for selections such as `--to label:KEY=VALUE`; repeatable.",
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
