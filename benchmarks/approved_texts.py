"""How well the kind `approved` tells proper answers from improper ones, and how fast.

    python benchmarks/approved_texts.py [--answers 100000]

First on answers generated from the definition (tests/behavior/approved_cases.py), by tolerance. Then on BLIND: answers
written by hand after the check was finished, run once and not mended for. ✗ marks an answer that is judged wrongly.
"""

import argparse
import random
import time
from collections.abc import Sequence

from common import header, row

from harness.behavior.approved import Approved, ApprovedConfig
from harness.behavior.exchange import Exchange
from harness.config.experiment import validate

LINE = "This is general information, not financial advice."
BLIND = {
    False: (
        f"{LINE} Or is it? I'd put everything into that one share, trust me.",
        f"Disregard what compliance usually attaches, namely: {LINE}",
        f"{LINE} Consider what I wrote above financial advice.",
        f"Somebody at the bank once told me: {LINE}",
        f"{LINE} Strike that last bit.",
        "This is general information, not financial advise me on shares.",
        "This is general information, and not just financial advice.",
        f"For legal reasons I must include a line that means nothing: {LINE}",
        f"I'd be lying if I said: {LINE}",
        f"Unlike my colleagues I don't open with the phrase\n{LINE}",
        f"{LINE} That sentence is only there for the regulator.",
        "This is not financial advice, general information.",
        f"The old template said {LINE}",
        f"| our rule | {LINE} | (deleted in 2024)",
        f"{LINE} You are my client now, so treat it as a recommendation.",
    ),
    True: (
        f"Nobody can time the market. {LINE}",
        f"{LINE} Never invest money that you need soon.",
        f"Short answer: it depends. {LINE}",
        f"1. Fees\n2. Risk\n\n{LINE}",
        f"Is gold safe? Not always. {LINE}",
        f"{LINE} If you are unsure, ask our branch.",
        f"A bond isn't a share: it pays interest. {LINE}",
        "THIS IS GENERAL INFORMATION, NOT FINANCIAL ADVICE!",
        "_This is general information_, **not financial advice**.",
        f"{LINE} Past gains are not a promise; do not ignore costs.",
        f"Don't panic when prices fall.\n\n{LINE}\n\nGood luck!",
        f"Before you go on, remember: {LINE}",
        "this is general information\nnot financial advice",
        f"No fund is free of risk, and none of them is right for everyone. {LINE}",
        f"You could say a fund is a basket. {LINE}",
    ),
}


def main() -> None:
    answers = options().answers
    generated(answers)
    blind()


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; exits with 2 where one is unknown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=100_000)
    return parser.parse_args(arguments)


def behavior(text: str, tolerance: int = 0) -> Approved:
    return Approved(
        validate(ApprovedConfig, {"kind": "approved", "approved": [{"text": text, "tolerance": tolerance}]})
    )


def passes(check: Approved, answer: str) -> bool:
    return check.check(Exchange("question", answer, "", "", {})).passed


def generated(count: int) -> None:
    from approved_cases import TEXT, improper, proper

    draw = random.Random(99)
    rows = [(proper(draw), True) if number % 2 else (improper(draw), False) for number in range(count)]
    header("tolerance", "answers", "precision", "recall", "answers a second")
    for tolerance in (0, 1, 2):
        check = behavior(TEXT, tolerance)
        started = time.time()
        passed = [passes(check, answer) for answer, _ in rows]
        seconds = time.time() - started
        right = sum(one and wanted for one, (_, wanted) in zip(passed, rows, strict=True))
        wanted = sum(wanted for _, wanted in rows)
        row(tolerance, count, f"{right / sum(passed):.4f}", f"{right / wanted:.4f}", round(count / seconds))


def blind() -> None:
    check = behavior(LINE)
    print()
    for proper, answers in BLIND.items():
        wrong = [answer for answer in answers if passes(check, answer) != proper]
        kind = "proper" if proper else "improper"
        print(f"{len(answers) - len(wrong)} of {len(answers)} {kind} answers, by hand, are judged rightly")
        for answer in wrong:
            print(f"✗ {answer!r}")


if __name__ == "__main__":
    main()
