"""The options `-q` and `-v`, which the root group and every command take."""

from __future__ import annotations

import click

quiet_option = click.option("-q", "--quiet", is_flag=True, help="Print only results, warnings and errors.")
verbose_option = click.option("-v", "--verbose", count=True, help="Print more diagnostics.")
