"""Time of `edgeq --help`, beside Python's bare start, `import click`, and `pip --help`.

`python -m benchmarks.cli_help [--json] [--rounds 15]`

The commands run in turns, so that all of them meet the same load. Each figure is a median over the rounds,
with the quartiles as its spread. The limit of 250 ms is for an idle machine. The ratio to `import click`
depends less on the load: every command line on click pays that import.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.figures import Figure, last_line

LIMIT_MS = 250.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Times of one command, in milliseconds."""

    command: str
    median_ms: float
    lower_ms: float
    upper_ms: float


def commands() -> dict[str, list[str]]:
    """Return the commands by the name that the table shows."""
    edgeq = Path(sys.executable).with_name("edgeq")
    return {
        "edgeq --help": [str(edgeq), "--help"],
        "python -c pass": [sys.executable, "-c", "pass"],
        "import click": [sys.executable, "-c", "import click"],
        "pip --help": [sys.executable, "-m", "pip", "--help"],
    }


def run_ms(command: list[str]) -> float:
    """Return the milliseconds from the start of a command to its end."""
    started_ns = time.perf_counter_ns()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True, timeout=60)
    return (time.perf_counter_ns() - started_ns) / 1e6


def measure(rounds: int) -> list[Row]:
    """Return a row for each command; the first round only fills the caches and is left out."""
    times: dict[str, list[float]] = {name: [] for name in commands()}
    for number in range(rounds + 1):
        for name, command in commands().items():
            took_ms = run_ms(command)
            if number > 0:
                times[name].append(took_ms)
    rows = []
    for name, values in times.items():
        lower_ms, median_ms, upper_ms = statistics.quantiles(values, n=4)
        rows.append(Row(command=name, median_ms=median_ms, lower_ms=lower_ms, upper_ms=upper_ms))
    return rows


def main() -> None:
    """Print the table and the line of figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON in place of the table")
    options = parser.parse_args()
    rows = measure(max(2, options.rounds))
    if options.json:
        print(json.dumps([asdict(row) for row in rows]))
    else:
        print(f"{'command':<16} {'median':>8} {'quartiles':>17}")
        for row in rows:
            print(
                f"{row.command:<16} {row.median_ms:>5.0f} ms {row.lower_ms:>6.0f} to {row.upper_ms:>4.0f} ms"
            )
    by_name = {row.command: row.median_ms for row in rows}
    ours_ms = by_name["edgeq --help"]
    figures = [
        Figure(name="help", value=ours_ms, unit="ms", peer=by_name["pip --help"], reach=f"<={LIMIT_MS:.0f}"),
        Figure(
            name="help over import click",
            value=ours_ms / by_name["import click"],
            unit="ratio",
            peer=by_name["pip --help"] / by_name["import click"],
            reach="<=2",
        ),
    ]
    print(last_line(figures))


if __name__ == "__main__":
    main()
