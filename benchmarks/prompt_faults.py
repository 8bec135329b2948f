"""The table of faults in docs/prompt_contract.md: what catches each, and how long that check takes.

    python benchmarks/prompt_faults.py

Injects every fault on the tests' real server (about two minutes on two cores) and rewrites the table. The time is that
of the check that found the fault, without setting the fault up; a live check reads and answers about 60 requests.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from common import ROOT
from faults import FAULTS, Fault
from junitparser import JUnitXml, Properties, TestCase

TABLE = ROOT / "docs" / "prompt_contract.md"
START, END = "<!-- faults: made by benchmarks/prompt_faults.py -->", "<!-- end of faults -->"


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; exits with 2 where one is unknown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    return parser.parse_args(arguments)


def main() -> None:
    options()
    times = measured()
    missing = [fault.name for fault in FAULTS if fault.name not in times]
    if missing:
        sys.exit(f"not caught: {', '.join(missing)}")
    head = ["| fault | seen in | injected on | caught by | time (ms) |", "| --- | --- | --- | --- | --- |"]
    table = "\n".join([START, *head, *(row(fault, times[fault.name]) for fault in FAULTS), END])
    before, _, rest = TABLE.read_text().partition(START)
    TABLE.write_text(before + table + rest.partition(END)[2])
    print(f"{len(FAULTS)} faults, all caught; the table is in {TABLE.relative_to(ROOT)}")


def measured() -> dict[str, float]:
    """Milliseconds of the check that found each fault, from a run of the mutation test."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "junit.xml"
        test = "tests/integration/test_prompt_faults.py::test_every_fault_is_caught"
        command = [sys.executable, "-m", "pytest", "-q", test, f"--junitxml={report}", "-o", "junit_family=xunit1"]
        subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL)
        cases = [case for suite in JUnitXml.fromfile(str(report)) for case in suite if case.is_passed]
    return {found["fault"]: float(found["ms"]) for found in map(properties, cases)}


def properties(case: TestCase) -> dict[str, str]:
    return {entry.name: entry.value for group in case.iterchildren(Properties) for entry in group}


def row(fault: Fault, ms: float) -> str:
    time = f"{ms:.0f}" if ms >= 1 else "<1"
    return f"| {fault.what} | {link(fault.seen_in)} | {fault.side} | {fault.caught_by} | {time} |"


def link(thread: str) -> str:
    """`owner/repository#number` as a link; a pull request's address forwards from its issue's."""
    repository, _, number = thread.partition("#")
    return f"[{thread}](https://github.com/{repository}/issues/{number})" if thread else "found here"


if __name__ == "__main__":
    main()
