"""How much of seeded contamination the audit finds, and how many clean rows it removes.

Evaluation items are put among 50,000 clean rows: word for word, with other punctuation and case, inside longer rows,
and with a tenth of their words replaced.

    python benchmarks/decontamination.py --data DATA --hub HUB

DATA is a folder of public rows, HUB one with local copies of the evaluated datasets (benchmarks/README.md).
"""

import argparse
import json
import random
import re
import string
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from clean_rows import Recombined, Row, natural_rows, row

from harness.config.experiment import TaskConfig
from harness.data.decontaminate import DecontaminateConfig, Decontamination, Match
from harness.data.evaluation_items import suite_items
from harness.data.words import words
from harness.evaluate.tasks.load import load_tasks
from harness.stats.proportion import wilson_interval

Item = dict[str, Any]
MMLU = ("abstract_algebra", "anatomy", "business_ethics", "clinical_knowledge", "econometrics", "professional_medicine")
TASKS = ["arc_easy", "openbookqa", "hellaswag", "piqa", "gsm8k", "ifeval", "lambada_openai", "disclaimer"]
TASKS += ["general_smoke", *(f"mmlu_{subject}" for subject in MMLU)]
OTHER_SPLITS = ["allenai/*/*/train.jsonl", "allenai/*/*/validation.jsonl", "Rowan/hellaswag/train.jsonl"]
OTHER_SPLITS += ["baber/piqa/train.jsonl", "openai/gsm8k/main/train.jsonl", "cais/mmlu/*/dev.jsonl"]
OTHER_SPLITS += ["cais/mmlu/*/validation.jsonl"]
CLEAN = 50_000
SEEDED = 1_000
REPLACED = 2_500
FUNCTION_WORDS = {"a", "an", "and", "are", "as", "at", "be", "been", "by", "did", "do", "does", "for", "from", "in"}
FUNCTION_WORDS |= {"is", "it", "of", "on", "or", "that", "the", "this", "to", "was", "were", "with"}

# Public rows that ask what an item asks, as a person judged: they are not clean rows. By the item's words.
KNOWN_OVERLAP = (
    "who was the first man to walk on the moon",
    "who was the first president of the united states of america",
    "who was the first president of the united states",
    "given this paragraph about wwii how many fatalities happened",
    "what is the highest mountain in the world",
    "what is the chemical formula for carbon dioxide",
    "what is the molecular formula for carbon dioxide",
    "name the largest ocean on earth",
    "what is the capital of france",
    "what is the opposite of hot",
)


def main() -> None:
    given = options()
    items = suite_items(load_tasks([TaskConfig(name=name) for name in TASKS], given.hub))
    groups = rows_by_kind(items, given.data, given.hub, random.Random(given.seed), given.seed)
    report(groups, Decontamination(items, DecontaminateConfig()), given.show)


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; exits with 2 where one is missing or unknown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--hub", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, default=0, help="print this many misses and false alarms of each kind")
    return parser.parse_args(arguments)


def rows_by_kind(items: list[Item], data: Path, hub: Path, chance: random.Random, seed: int) -> dict[str, list[Row]]:
    """The seeded rows of each kind, and the clean ones."""
    natural = [r for r in natural_rows(data) if not " ".join(words(r["instruction"])).startswith(KNOWN_OVERLAP)]
    clean = Recombined(natural, seed)
    groups = {"clean: other splits of the benchmarks": list(other_splits(hub, items))}
    groups["clean: items with a third of the content replaced"] = [
        row("replaced", n, another_question(item, clean, chance), clean.text(2))
        for n, item in enumerate(chance.sample([i for i in items if 8 <= len(words(i["text"])) <= 30], REPLACED))
    ]
    groups["clean: public rows"] = natural
    rest = CLEAN - sum(map(len, groups.values()))
    groups["clean: recombined sentences"] = [clean.row(n) for n in range(rest)]
    for kind, (least, most, change) in seeding(clean, chance).items():
        able = [item for item in items if least <= len(item["text"].split()) <= most]
        groups[kind] = [{**change(item), "id": item["id"]} for item in chance.sample(able, min(SEEDED, len(able)))]
    return groups


def seeding(clean: Recombined, chance: random.Random) -> dict[str, tuple[int, int, Callable[[Item], Row]]]:
    """What is done to an item to make a row of it, by kind; with the least and most words of items it is done to."""

    def answer(item: Item) -> str:
        return chance.choice(item["answers"]) if item["answers"] else clean.text(1)

    def plain(item: Item) -> Row:
        return row("seeded", 0, item["text"], answer(item))

    def reworded(item: Item) -> Row:
        return row("seeded", 0, chance.choice(REWORDINGS)(item["text"]), answer(item))

    def embedded(item: Item) -> Row:
        return _embedded(item, answer(item), clean, chance)

    def changed(item: Item) -> Row:
        return row("seeded", 0, _changed(item["text"], clean, chance), answer(item))

    return {
        "verbatim": (1, 10_000, plain),
        "punctuation and case": (1, 10_000, reworded),
        "embedded in a longer row": (1, 10_000, embedded),
        "10% of words replaced": (8, 10_000, changed),
        "one word replaced, items of 4 to 7 words": (4, 7, changed),
    }


REWORDINGS: tuple[Callable[[str], str], ...] = (
    str.upper,
    str.lower,
    str.title,
    lambda text: text.translate(str.maketrans("", "", string.punctuation)).lower(),
    lambda text: re.sub(r"[^\w\s]", " ", text),
    lambda text: re.sub(r"\s+", "  ", text).rstrip(".?!") + " ...",
    lambda text: "“" + text.replace("'", "’").replace('"', "”").replace(" - ", " — ") + "”",
    lambda text: "- **" + re.sub(r"([.?!,;:])", r" \1", text) + "**",
)


def _embedded(item: Item, answer: str, clean: Recombined, chance: random.Random) -> Row:
    before, after = clean.text(chance.randint(1, 4)), clean.text(chance.randint(1, 4))
    if before[-1] not in ".!?:":
        before += "."
    joint = chance.choice([" ", "\n", "\n\n"])
    text = joint.join([before, item["text"], after])
    place = chance.randrange(3)
    if place == 0:
        return row("seeded", 0, text, answer)
    if place == 1:
        return row("seeded", 0, "Read this and answer.", answer, text)
    return row("seeded", 0, "Make up a quiz question and answer it.", f"{text}{joint}Answer: {answer}")


def _changed(text: str, clean: Recombined, chance: random.Random) -> str:
    """The text with a tenth of its words, at least one, replaced by words of the clean rows."""
    parts = text.split()
    places = chance.sample(range(len(parts)), max(1, round(0.1 * len(parts))))
    for place, word in zip(places, clean.words(len(places)), strict=True):
        parts[place] = word
    return " ".join(parts)


def another_question(item: Item, clean: Recombined, chance: random.Random) -> str:
    """The item's wording about something else: a third of its content words, at least two, are others'."""
    parts = item["text"].split()
    content = [place for place, word in enumerate(parts) if _is_content(word)]
    for place in chance.sample(content, min(len(content), max(2, -(-len(content) // 3)))):
        parts[place] = next(word for word in iter(lambda: clean.words(1)[0], None) if _is_content(word))
    return " ".join(parts)


def _is_content(word: str) -> bool:
    return word.lower().strip(string.punctuation) not in FUNCTION_WORDS


def other_splits(hub: Path, items: list[Item]) -> Iterable[Row]:
    """Questions from splits that are not evaluated: the items' own style, other questions on other passages."""
    asked = {" ".join(words(item["text"])) for item in items}
    evaluated = hub / "Rowan" / "hellaswag" / "validation.jsonl"
    passages = {json.loads(line)["source_id"] for line in evaluated.read_text().splitlines()}
    for name in OTHER_SPLITS:
        for path in sorted(hub.glob(name)):
            for number, line in enumerate(path.read_text().splitlines()):
                values = json.loads(line)
                text = next(values[key] for key in ("question", "question_stem", "goal", "ctx") if key in values)
                if " ".join(words(text)) not in asked and values.get("source_id") not in passages:
                    yield row("-".join(path.parts[-3:]), number, text, _last_choice(values))


def _last_choice(values: dict[str, Any]) -> str:
    choices = values.get("choices") or values.get("endings") or [values.get("sol1") or values.get("answer")]
    return str((choices["text"] if isinstance(choices, dict) else choices)[-1])


def report(groups: dict[str, list[Row]], decontamination: Decontamination, show: int) -> None:
    print(f"{len(decontamination)} items of {len(TASKS)} tasks, {sum(map(len, groups.values()))} rows")
    print("| rows | n | found | share (95% interval) | kinds | that very item |\n| --- | --- | --- | --- | --- | --- |")
    clean = Counter[str]()
    for kind, rows in groups.items():
        started = time.perf_counter()
        matches = [match for part in _parts(rows) for match in decontamination.match_all(part)]
        seconds = time.perf_counter() - started
        found = [match for match in matches if match is not None]
        if kind.startswith("clean"):
            clean.update(rows=len(rows), found=len(found))
        own = sum(match is not None and match.item_id == r["id"] for match, r in zip(matches, rows, strict=True))
        _line(kind, len(rows), len(found), Counter(match.kind for match in found), own)
        _show(kind, rows, matches, show)
        print(f"<!-- {len(rows) / seconds:.0f} rows/s -->")
    _line("clean, all", clean["rows"], clean["found"], Counter(), 0)


def _parts(rows: list[Row]) -> Iterable[list[Row]]:
    return (rows[start : start + 2000] for start in range(0, len(rows), 2000))


def _line(kind: str, n: int, found: int, kinds: Counter[str], own: int) -> None:
    low, high = wilson_interval(found, n)
    told = ", ".join(f"{name} {count}" for name, count in kinds.most_common())
    print(f"| {kind} | {n} | {found} | {found / n:.2%} ({low:.2%} to {high:.2%}) | {told} | {own or ''} |")


def _show(kind: str, rows: list[Row], matches: list[Match | None], count: int) -> None:
    wrong = [(r, m) for r, m in zip(rows, matches, strict=True) if (m is not None) == kind.startswith("clean")]
    for r, m in wrong[:count]:
        text = " / ".join(r[column] for column in ("instruction", "input", "output"))
        print("   ", r["id"], m, "|", text[:250].replace("\n", " "))


if __name__ == "__main__":
    main()
