"""Rows for benchmarks: public ones from a folder of data, and rows recombined from their sentences."""

import csv
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

Row = dict[str, str]
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")


def row(source: str, number: int, instruction: str, output: str, given: str = "") -> Row:
    named = {"id": f"{source}-{number}", "source": source, "topic": ""}
    return {**named, "instruction": instruction, "input": given, "output": output}


def natural_rows(data: Path) -> list[Row]:
    """Instructions, questions, conversations and notes as they were published."""
    made = [*_instructions(data / "replay"), *_questions(data / "replay"), *_clinical(data / "clinical"), *_bank(data)]
    made += [(name, question, answer, "") for name, question, answer in _conversations(data / "replay")]
    return [
        row(name, number, instruction, output, given)
        for number, (name, instruction, output, given) in enumerate(made)
        if instruction.strip() and output.strip()
    ]


def _instructions(folder: Path) -> Iterator[tuple[str, str, str, str]]:
    for line in (folder / "dolly_hhrlhf_1000.jsonl").read_text().splitlines():
        values = json.loads(line)
        asked = values["prompt"].split("### Instruction:\n")[-1].split("\n\n### Response")[0]
        yield "dolly", asked, values["response"], ""
    for values in json.loads((folder / "instruction_triples_1100.json").read_text()):
        yield "triples", values["instruction"], values["output"], values["input"]
    for line in (folder / "self_instruct_seed_tasks.jsonl").read_text().splitlines():
        values = json.loads(line)
        for instance in values["instances"]:
            yield "self_instruct", values["instruction"], instance["output"], instance["input"]


def _questions(folder: Path) -> Iterator[tuple[str, str, str, str]]:
    for name in ("strategyqa", "qasc"):
        with (folder / f"flan_{name}.tsv").open(newline="") as file:
            for question, answer, reason in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
                yield name, question, f"{reason} So the answer is {answer}.", ""


def _clinical(folder: Path) -> Iterator[tuple[str, str, str, str]]:
    for name, note in (("MTS-Dialog-TrainingSet", "section_text"), ("aci_bench_train", "note")):
        with (folder / f"{name}.csv").open(newline="") as file:
            for values in csv.DictReader(file):
                yield name, "Write the clinical note for this visit.", values[note], values["dialogue"]


def _bank(data: Path) -> Iterator[tuple[str, str, str, str]]:
    for values in json.loads((data / "finance" / "retail_banking_conversations.json").read_text()):
        yield "bank", values["rol1"], values["rol2"], ""


def _conversations(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Every question of the trees with its first answer."""
    for line in (folder / "oasst_en_100_trees.jsonl").read_text().splitlines():
        waiting = [json.loads(line)["prompt"]]
        while waiting:
            message = waiting.pop()
            replies = message.get("replies") or []
            waiting += replies
            if replies and message["role"] == "prompter":
                yield "oasst", message["text"], replies[0]["text"]


class Recombined:
    """Rows out of the sentences of given rows: the question of one, sentences of others as input and answer."""

    def __init__(self, rows: list[Row], seed: int):
        self._random = random.Random(seed)
        self._questions = [r["instruction"] for r in rows if 3 <= len(r["instruction"].split()) <= 60]
        texts = [text for r in rows for text in (r["input"], r["output"])]
        self.sentences = [s for text in texts for s in _SENTENCE.split(text) if len(s.split()) >= 4]

    def row(self, number: int) -> Row:
        given = self.text(self._random.randint(1, 3)) if self._random.random() < 0.3 else ""
        asked = f"{self._random.choice(self._questions)} {self.text(1)}"
        return row("recombined", number, asked, self.text(self._random.randint(1, 8)), given)

    def text(self, sentences: int) -> str:
        return " ".join(self._random.choice(self.sentences) for _ in range(sentences))

    def words(self, count: int) -> list[str]:
        """Words in the frequencies of the text."""
        return [self._random.choice(self._random.choice(self.sentences).split()) for _ in range(count)]
