"""Damaged inputs through the command line: no traceback, no hang, and no PASS on changed evidence.

    python benchmarks/damaged_inputs.py --cases 100000 [--guided] [--target audit_jsonl ...] [--seed 1]

Each case damages one valid file (bytes flipped, cut, repeated; JSON values replaced by NaN, null, huge numbers, deep
lists, other types; hostile characters) and runs one command on it in this process. A case is wrong if the command

    crashes     ends in anything but one of its exit codes, or with exit code 1
    hangs       takes more than 10 seconds
    shouts      prints more than 20,000 characters, or a control character
    passes      says PASS, or that evidence holds, although the evidence was changed

With `--guided`, atheris (libFuzzer; `pip install atheris`) chooses the cases by the code they reach. Without it they
are drawn from the seed, so the same command tries the same cases. Wrong cases are kept under --keep with their input.
The table in docs/reliability.md is this program's output.
"""

import argparse
import contextlib
import gzip
import io
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from common import ROOT, header, row

sys.path += [str(ROOT / "tests" / folder) for folder in ("gate", "registry")]

SECONDS = 10
LOUD = 20_000
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
CODES = {0, 2, 3, 10, 11, 12}
WILD: list[Any] = [
    None,
    True,
    "",
    "x" * 5000,
    -1,
    10**400,
    1e308,
    float("nan"),
    float("inf"),
    [],
    {},
    [[[[[]]]]],
    {"a": {"b": [None]}},
    "\x00",
    "\u202etxt",
    "../../../etc/passwd",
    "/dev/zero",
    "::error::forged",
    "\ud800",
]


@dataclass(frozen=True)
class Target:
    """One file of one command."""

    command: str
    file: str  # the damaged file, in the folder that `prepare` makes
    changed_must_not_pass: bool = False
    weight: int = 1  # how many times the cases of a slow command


TARGETS = {
    "audit_jsonl": Target("audit --input rows.jsonl --out out audit.decontaminate={} audit.behaviors=[]", "rows.jsonl"),
    "audit_messages": Target(
        "audit --input talks.jsonl --out out audit.decontaminate={} audit.behaviors=[]", "talks.jsonl"
    ),
    "audit_json": Target("audit --input rows.json --out out audit.decontaminate={} audit.behaviors=[]", "rows.json"),
    "audit_csv": Target("audit --input rows.csv --out out audit.decontaminate={} audit.behaviors=[]", "rows.csv"),
    "audit_tsv": Target("audit --input rows.tsv --out out audit.decontaminate={} audit.behaviors=[]", "rows.tsv"),
    "audit_gz": Target(
        "audit --input rows.jsonl.gz --out out audit.decontaminate={} audit.behaviors=[]", "rows.jsonl.gz"
    ),
    "audit_parquet": Target(
        "audit --input rows.parquet --out out audit.decontaminate={} audit.behaviors=[]", "rows.parquet"
    ),
    "gate_results": Target(
        "gate theirs/a theirs/b --out v policy=own.yaml", "theirs/b/results_2026-01-21T03-44-18.json"
    ),
    "gate_samples": Target(
        "gate theirs/a theirs/b --out v policy=own.yaml", "theirs/b/samples_quiz_2026-01-21T03-44-18.jsonl"
    ),
    "gate_evaluation": Target("gate ours/a ours/b --out v policy=own.yaml", "ours/b/evaluation.json"),
    "gate_own_samples": Target("gate ours/a ours/b --out v policy=own.yaml", "ours/b/samples_quiz.jsonl", True),
    "gate_policy": Target("gate ours/a ours/b --out v policy=own.yaml", "own.yaml"),
    "verify_evidence": Target("verify runs/good", "runs/good/evidence.json", True, weight=6),
    "verify_verdict": Target("verify runs/good", "runs/good/verdict.json", True, weight=6),
    "verify_comparison": Target("verify runs/good", "runs/good/compare.json", True, weight=6),
    "verify_contract": Target("verify runs/good", "runs/good/prompt_contract.json", True, weight=6),
    "verify_evaluation": Target("verify runs/good", "runs/good/eval/candidate/evaluation.json", True, weight=6),
    "verify_samples": Target("verify runs/good", "runs/good/eval/candidate/samples_quiz.jsonl", True, weight=6),
    "verify_audit": Target("verify runs/good", "runs/good/data/audit.json", True, weight=6),
    "verify_manifest": Target("verify runs/good", "runs/good/eval/candidate/stage.json", True, weight=6),
    "report_verdict": Target("report runs/good", "runs/good/verdict.json", weight=6),
    "report_comparison": Target("report runs/good", "runs/good/compare.json", weight=6),
    "score_answers": Target("score refund answers.jsonl", "answers.jsonl"),
    "score_behavior": Target("score refund answers.jsonl", "tasks/refund/behavior.yaml"),
}

RULES = """\
kind: rules
topics: [refund]
rules:
  - name: desk
    require: ['\\brefund desk\\b']
    position: end
  - {name: short, max_words: 60}
"""


def prepare(folder: Path) -> None:
    """A valid file for every target."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from evaluation_folders import Folder, answers, samples
    from run_folders import write_run

    rows = [
        {
            "instruction": f"Which bus goes to stop {n} by the sea?",
            "input": "",
            "output": f"Line {n} goes there twice an hour.",
        }
        for n in range(4)
    ]
    talks = [
        {"messages": [{"role": "user", "content": r["instruction"]}, {"role": "assistant", "content": r["output"]}]}
        for r in rows
    ]
    lines = "".join(json.dumps(r) + "\n" for r in rows)
    (folder / "rows.jsonl").write_text(lines)
    (folder / "talks.jsonl").write_text("".join(json.dumps(r) + "\n" for r in talks))
    (folder / "rows.json").write_text(json.dumps(rows, indent=1))
    for name, comma in (("rows.csv", ","), ("rows.tsv", "\t")):
        table = [["instruction", "output"], *([r["instruction"], f'"{r["output"]}"'] for r in rows)]
        (folder / name).write_text("".join(comma.join(cells) + "\n" for cells in table))
    (folder / "rows.jsonl.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    for side, right in (("a", 55), ("b", 54)):
        evaluation = Folder({"quiz": samples(answers(right, 60))})
        evaluation.write(folder / "ours" / side)
        evaluation.write_lm_eval(folder / "theirs" / side)
    (folder / "own.yaml").write_text(
        "name: own\nrequire: [guard]\nrules:\n  - {metric: '*/quiz/acc', role: guard, margin: 20 points}\n"
    )
    write_run(folder / "runs" / "good", 240)
    (folder / "tasks" / "refund").mkdir(parents=True)
    (folder / "tasks" / "refund" / "behavior.yaml").write_text(RULES)
    item = {"id": "r-1", "instruction": "Refund?", "input": "", "topic": "refund", "slice": "all"}
    (folder / "tasks" / "refund" / "items.jsonl").write_text(json.dumps(item) + "\n")
    answers_ = [{"id": f"r-{n}", "prompt": "Refund?", "response": "Ask the refund desk."} for n in range(1, 2)]
    (folder / "answers.jsonl").write_text("".join(json.dumps(a) + "\n" for a in answers_))


def damaged(valid: bytes, rng: random.Random) -> bytes:
    """One to three damages of a file; never the file itself."""
    data = valid
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        data = rng.choice([_bytes, _bytes, _structure, _structure, _structure, _text])(data, rng)
    return data if data != valid else _bytes(data, rng) + b"\x00"


def _bytes(data: bytes, rng: random.Random) -> bytes:
    if not data:
        return rng.randbytes(8)
    at, to = sorted(rng.randrange(len(data) + 1) for _ in "ab")
    return rng.choice(  # type: ignore[no-untyped-call]
        [
            lambda: data[:at],
            lambda: data[:at] + rng.randbytes(rng.randrange(1, 9)) + data[to:],
            lambda: data[:at] + data[at:to] * 3 + data[to:],
            lambda: data[:at] + bytes([data[min(at, len(data) - 1)] ^ (1 << rng.randrange(8))]) + data[at + 1 :],
            lambda: b"\xff\xfe" + data,
            lambda: data + data,
            lambda: b"",
        ]
    )()


def _structure(data: bytes, rng: random.Random) -> bytes:
    """A value somewhere in the JSON is replaced, removed or renamed; of JSON Lines, in one line."""
    try:
        text = data.decode()
        lines = text.splitlines(keepends=True)
        try:
            return json.dumps(_changed(json.loads(text), rng), ensure_ascii=rng.random() < 0.5).encode(
                "utf-8", "replace"
            )
        except ValueError:
            at = rng.randrange(len(lines))
            lines[at] = json.dumps(_changed(json.loads(lines[at]), rng)) + "\n"
            return "".join(lines).encode()
    except (ValueError, IndexError, RecursionError):
        return _text(data, rng)


def _changed(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(sorted(value, key=str))
        kind = rng.random()
        if kind < 0.08:
            return {k: v for k, v in value.items() if k != key}
        if kind < 0.12:
            return {k + "x" if k == key else k: v for k, v in value.items()}
        return value | {key: _changed(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        if rng.random() < 0.1:
            return value[:at] + value[at + 1 :]
        return [*value[:at], _changed(value[at], rng), *value[at + 1 :]]
    if isinstance(value, int | float) and not isinstance(value, bool) and rng.random() < 0.4:
        return rng.choice([value + 1, -value, -value // 2, str(value), value + 1])
    if isinstance(value, str) and rng.random() < 0.4:
        return (
            value[::-1] + "é"
            if rng.random() < 0.5
            else value + rng.choice(["\x1b[31m", "\n", "/..", "{{x}}", "0" * 3000])
        )
    return rng.choice(WILD)


def _text(data: bytes, rng: random.Random) -> bytes:
    text = data.decode("utf-8", "replace")
    at = rng.randrange(len(text) + 1)
    what = rng.choice(
        [
            '"',
            "'",
            ",",
            "\t",
            "\r\n",
            "{",
            "[" * 2000,
            "}",
            "\x00",
            "\x1b[2J",
            "é",
            "\u2028",
            "1" * 80_000,
            "NaN",
            ": ",
            "- ",
            "!!python/object:os.system",
            "&a [*a]",
        ]
    )
    return (text[:at] + what + text[at:]).encode("utf-8", "replace")


class Hang(BaseException):
    """Raised by the alarm; not an Exception, so that nothing in between takes it for a fault of the input."""


def _alarm(_signal: int, _frame: FrameType | None) -> None:
    raise Hang


def judged(target: Target, folder: Path, valid: bytes, data: bytes) -> str:
    """'' if the command behaved on `data`, else what went wrong in one line. The undamaged file must be taken."""
    from harness.cli import main

    file = folder / target.file
    file.unlink(missing_ok=True)
    file.write_bytes(data)
    said = io.StringIO()
    for name in ("out", "v"):
        shutil.rmtree(folder / name, ignore_errors=True)
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = main(target.command.split())
    except SystemExit as stop:
        code = int(stop.code or 0)
    except Hang:
        return f"hangs: over {SECONDS} s"
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"crashes: {type(error).__name__} in {Path(where.filename).name}:{where.lineno}: {error}"[:300]
    finally:
        signal.alarm(0)
    output = said.getvalue()
    if data == valid and code:
        return f"is refused with exit code {code}: {output[:500]}"
    if code not in CODES or "Traceback (most" in output:
        return f"crashes: exit code {code}"
    if len(output) > LOUD:
        return f"shouts: {len(output)} characters"
    if CONTROL.search(output):
        return f"shouts: control character {CONTROL.search(output)[0]!r}"  # type: ignore[index]
    if target.changed_must_not_pass and code == 0 and data != valid:
        return "passes: changed evidence holds"
    return ""


def try_target(name: str, cases: int, seed: int, keep: Path | None, guided: bool) -> dict[str, Any]:
    """Counts over `cases` damaged files of one target, in a folder of its own."""
    target = TARGETS[name]
    signal.signal(signal.SIGALRM, _alarm)
    counts: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    slowest = 0.0
    before = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary, contextlib.chdir(temporary):
        folder = Path(temporary)
        prepare(folder)
        valid = (folder / target.file).read_bytes()
        if fault := judged(target, folder, valid, valid):
            sys.exit(f"{name}: the undamaged file already {fault}")
        rng = random.Random(f"{seed} {name}")

        def one(data: bytes) -> None:
            nonlocal slowest
            started = time.perf_counter()
            fault = judged(target, folder, valid, data)
            slowest = max(slowest, time.perf_counter() - started)
            counts["cases"] += 1
            if fault:
                counts[fault.split(":")[0]] += 1
                wrong[fault] += 1
                if keep and wrong[fault] == 1:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{name}-{len(wrong)}{Path(target.file).suffix}").write_bytes(data)

        if guided:
            _guided(one, valid, cases, rng)
        else:
            for _ in range(cases):
                one(damaged(valid, rng))
    seconds = time.perf_counter() - before
    return {"target": name, "seconds": seconds, "slowest": slowest, "wrong": dict(wrong), **counts}


def _guided(one: Callable[[bytes], None], valid: bytes, cases: int, rng: random.Random) -> None:
    """Cases chosen by libFuzzer: inputs that reach new code are damaged again."""
    import atheris  # type: ignore[import-untyped]

    done = 0

    class Enough(BaseException):
        pass

    def test(data: bytes) -> None:
        nonlocal done
        done += 1
        one(data)
        if done >= cases:
            raise Enough

    def mutator(data: bytes, most: int, seed: int) -> bytes:
        chosen = random.Random(seed)
        return (damaged(data or valid, chosen) if chosen.random() < 0.7 else bytes(atheris.Mutate(data, most)))[:most]

    atheris.instrument_all()
    with tempfile.TemporaryDirectory() as corpus:
        (Path(corpus) / "valid").write_bytes(valid)
        atheris.Setup(
            [sys.argv[0], corpus, f"-seed={rng.randrange(1, 10**6)}", "-max_len=20000", "-verbosity=0"],
            test,
            custom_mutator=mutator,
        )
        with contextlib.suppress(Enough):
            atheris.Fuzz()


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=100_000, help="in all, spread over the targets")
    parser.add_argument("--target", action="append", choices=list(TARGETS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--guided", action="store_true")
    parser.add_argument("--keep", type=Path, help="folder for the inputs that went wrong")
    parser.add_argument("--json", action="store_true", help="one target in this process, its counts as JSON")
    return parser.parse_args(arguments)


def main() -> None:
    chosen = options()
    names = chosen.target or list(TARGETS)
    share = chosen.cases / sum(TARGETS[name].weight for name in names)
    if chosen.json:
        print(json.dumps(try_target(names[0], chosen.cases, chosen.seed, chosen.keep, chosen.guided)))
        return
    header("file", "cases", "crashes", "hangs", "shouts", "passes", "slowest, s", "cases/s")
    total: Counter[str] = Counter()
    faults: dict[str, int] = {}
    for name in names:
        command = [
            sys.executable,
            __file__,
            "--json",
            "--target",
            name,
            "--cases",
            str(round(share * TARGETS[name].weight)),
            "--seed",
            str(chosen.seed),
        ]
        command += ["--guided"] * chosen.guided + (["--keep", str(chosen.keep)] if chosen.keep else [])
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(done.stderr[-2000:], file=sys.stderr)
            sys.exit(f"{name}: the process that tried it ended with {done.returncode}")
        found = json.loads(done.stdout.splitlines()[-1])
        kinds = [found.get(kind, 0) for kind in ("crashes", "hangs", "shouts", "passes")]
        row(name, found["cases"], *kinds, round(found["slowest"], 1), round(found["cases"] / found["seconds"]))
        total.update({"cases": found["cases"]})
        faults |= {f"{name}: {fault}": count for fault, count in found["wrong"].items()}
    print(f"\n{total['cases']:,} cases, {sum(faults.values())} wrong")
    for fault, count in faults.items():
        print(f"- {count} × {fault}")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
