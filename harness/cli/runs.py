"""`harness runs`: lists the runs of one or more folders."""

import argparse
import csv
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.cli.arguments import Subparsers, add_verb, refuse_settings
from harness.core.errors import ExitCode

MIB = 2**20
DAY_S, HOUR_S = 86_400, 3_600


def register(subparsers: Subparsers) -> None:
    parser = add_verb(
        subparsers, "runs", runs,
        does="list runs: verdict, age, size, what is missing, key figures",
        usage="[DIR...] [options]",
        example="harness runs --csv > runs.csv",
    )  # fmt: skip
    parser.add_argument(
        "folders", nargs="*", type=Path, default=[Path("runs")], metavar="DIR", help="folder of runs (default: runs)"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a JSON list, with every metric of every verdict")
    form.add_argument("--csv", action="store_true", help="print the same as CSV")


def runs(options: argparse.Namespace) -> int:
    """DONE, also for folders without a run. Damaged runs are listed with what is damaged."""
    from harness.workflows.frames import RUN_COLUMNS, run_rows

    refuse_settings("runs", options.overrides)
    rows = [{**row, "bytes": _bytes(Path(row["path"]))} for folder in options.folders for row in run_rows(folder)]
    rows.sort(key=lambda row: str(row["created"] or ""), reverse=True)
    if options.json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    elif options.csv:
        extra = sorted({key for row in rows for key in row} - {*RUN_COLUMNS, "bytes"})
        writer = csv.DictWriter(sys.stdout, [*RUN_COLUMNS, "bytes", *extra], lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    else:
        _print(rows, [str(folder) for folder in options.folders])
    return ExitCode.DONE


def _print(rows: list[dict[str, Any]], folders: list[str]) -> None:
    """One line a run, the newest first; a second one for its largest changes."""
    from harness.core.console import plain, plural, show

    if rows:
        show(f"{'verdict':<13}{'age':>8}{'size':>13}  run")
    for row in rows:
        missing = f"  missing: {row['missing']}" if row["missing"] else ""
        size = f"{row['bytes'] / MIB:9.1f} MiB"
        show(f"{row['verdict'] or '–':<13}{_age(row['created']):>8}{size}  {plain(row['run_id'])}{missing}")
        changes = {key.removeprefix("delta/"): value for key, value in row.items() if key.startswith("delta/")}
        largest = sorted(changes, key=lambda key: -abs(changes[key]))[:3]
        if largest:
            show(f"{'':<13}{', '.join(f'{plain(key)} {changes[key]:+.3f}' for key in largest)}")
    show(f"{plural(len(rows), 'run')} in {', '.join(folders)}")


def _age(created: str | None) -> str:
    try:
        seconds = (datetime.now(UTC) - datetime.fromisoformat(str(created))).total_seconds()
    except (ValueError, TypeError):
        return "–"
    if seconds < HOUR_S:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / HOUR_S:.0f} h" if seconds < 2 * DAY_S else f"{seconds / DAY_S:.0f} d"


def _bytes(folder: Path) -> int:
    """The size of a run's files; links are not followed."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_symlink() or path.is_file())


def _cell(value: Any) -> Any:
    """A value for a spreadsheet: text that would be read as a formula is quoted."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t")) else value
