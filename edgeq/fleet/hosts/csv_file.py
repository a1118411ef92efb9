"""Hosts of a CSV file: its first line names the columns, and every other line is a host.

Each line is parsed on its own: a quote that is not closed spoils one line, not the rest of the file.
"""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from edgeq.errors import ConfigError, EdgeqError
from edgeq.fleet.hosts.entry import Entries, HostEntry, HostFile, make_entry
from edgeq.fleet.names import check_name

_DELIMITERS = (",", ";", "\t", "|")
_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "name": ("name", "device", "device_name", "alias"),
    "host": ("host", "address", "ip", "ip_address", "hostname", "addr"),
    "port": ("port", "ssh_port"),
    "user": ("user", "username", "ssh_user", "login"),
    "kind": ("kind", "device_kind"),
    "labels": ("labels", "label"),
    "identity": ("identity", "identity_file", "key_file", "private_key"),
    "fingerprint": ("fingerprint", "host_key_fingerprint"),
    "python": ("python",),
    "home": ("home",),
    "jump": ("jump", "jump_host", "proxyjump", "proxy_jump"),
    "transport": ("transport",),
}
_NAMES = {alias: column for column, aliases in _COLUMNS.items() for alias in aliases}
# They would become labels, and devices.toml must not hold a secret.
_SECRET = re.compile(r"pass|secret|token|credential|pin$")


def column_names(line: str) -> list[str]:
    """Return the words of a file's first line, as columns are named."""
    return [_word(cell) for cell in _cells(line, _delimiter(line))]


def is_header(line: str) -> bool:
    """Return whether a file's first line can be that of a CSV file of hosts."""
    try:
        return any(_NAMES.get(name) in ("host", "name") for name in column_names(line))
    except csv.Error:
        return False


def read_csv(path: Path, text: str) -> HostFile:
    """Return the hosts of a CSV file.

    Raises:
        ConfigError: the first line does not name the columns.
    """
    entries = Entries(path)
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if _counts(line)]
    if not lines:
        return entries.file()
    first, header = lines[0]
    delimiter = _delimiter(header)
    columns = _columns(entries, first, header, delimiter)
    for number, line in lines[1:]:
        where = entries.where(number)
        try:
            cells = _cells(line, delimiter)
        except csv.Error as error:
            entries.refuse(where, ConfigError(where, f"not a line of a CSV file: {error}"))
            continue
        if not any(cells):
            continue
        entries.add(where, _shown_name(columns, cells), partial(_entry, where, columns, cells, path))
    return entries.file()


def _columns(entries: Entries, number: int, header: str, delimiter: str) -> list[str]:
    """Return what each column holds: a setting, `label:KEY`, or "" for nothing."""
    where = entries.where(number)
    try:
        words = [_word(cell) for cell in _cells(header, delimiter)]
    except csv.Error as error:
        raise ConfigError(where, f"not a line of a CSV file: {error}") from error
    # With an address beside it, `hostname` is what the host is called.
    is_name = "hostname" in words and "name" not in words and bool({"ip", "address", "ip_address"} & {*words})
    columns: list[str] = []
    for word in words:
        column = "name" if word == "hostname" and is_name else _NAMES.get(word) or _label_column(where, word)
        if _SECRET.search(word):
            entries.notes.append(f"the column {word!r} is not read: edgeq logs in with keys")
            column = ""
        if column and column in columns:
            raise ConfigError(where, f"two columns are the {column}: {header.strip()[:80]!r}")
        columns.append(column)
    if "host" not in columns and "name" not in columns:
        raise ConfigError(
            where,
            expected="the names of the columns: host, and name, port, user, kind, labels as needed",
            got=repr(header.strip()[:80]),
            hint="write a first line such as `name,host,user,labels`; other columns become labels",
        )
    labels = [column.removeprefix("label:") for column in columns if column.startswith("label:")]
    if labels:
        entries.notes.append(f"columns that become labels: {', '.join(labels)}")
    return columns


def _label_column(where: str, word: str) -> str:
    if not word:
        return ""
    key = word.removeprefix("label:").removeprefix("label_")
    if key == word:
        near = difflib.get_close_matches(word, _NAMES, n=1, cutoff=0.75)
        if near:
            raise ConfigError(
                where,
                f"the column {word!r} is not known; did you mean {near[0]!r}?",
                hint=f"for a label of that name, call the column `label:{word}`",
            )
    try:
        return f"label:{check_name(key, what='label')}"
    except EdgeqError as error:
        raise ConfigError(f"{where}: column", expected=error.expected, got=error.got) from error


def _entry(where: str, columns: list[str], cells: list[str], path: Path) -> HostEntry:
    if len(cells) > len(columns) and any(cells[len(columns) :]):
        raise ConfigError(where, expected=f"{len(columns)} cells", got=str(len(cells)))
    row = {column: cell for column, cell in zip(columns, cells, strict=False) if column and cell}
    labels = _labels(where, row.pop("labels", ""))
    for column in [column for column in row if column.startswith("label:")]:
        labels[column.removeprefix("label:")] = row.pop(column)
    settings = {column: row.get(column) for column in _COLUMNS if column != "labels"}
    return make_entry(where=where, labels=labels, folder=path.parent, **settings)  # type: ignore[arg-type]


def _labels(where: str, text: str) -> dict[str, str]:
    labels = {}
    for word in re.split(r"[;,\s]+", text):
        if not word:
            continue
        key, sign, value = word.partition("=")
        if not sign or not value:
            raise ConfigError(
                f"{where}: labels", expected="KEY=VALUE, several with ; between", got=repr(word)
            )
        labels[key] = value
    return labels


def _shown_name(columns: list[str], cells: list[str]) -> str:
    row = dict(zip(columns, cells, strict=False))
    return row.get("name") or row.get("host") or ""


def _counts(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _delimiter(line: str) -> str:
    return max(_DELIMITERS, key=line.count)


def _cells(line: str, delimiter: str) -> list[str]:
    (cells,) = csv.reader([line], delimiter=delimiter, strict=True, skipinitialspace=True)
    return [cell.strip() for cell in cells]


def _word(cell: str) -> str:
    return re.sub(r"[\s-]+", "_", cell.strip().lower())
