"""Precision, recall and speed of the data room's filters, with presidio alone on the same rows beside them.

Prints Markdown. Needs the folder of public rows (labelled ones among them):

    python benchmarks/detectors.py --data ../shared/data
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "data")]

from clean_rows import natural_rows  # noqa: E402
from labelled import (  # noqa: E402
    Score,
    Spans,
    own,
    own_personal_data,
    rule_scores,
    shared_personal_data,
    shared_toxicity,
    span_scores,
)

from harness.data.filters.legal import Legal, LegalConfig  # noqa: E402
from harness.data.filters.personal_data import ENTITIES, REGIONS, PersonalData, PersonalDataConfig  # noqa: E402
from harness.data.filters.quality import Quality, QualityConfig  # noqa: E402
from harness.data.filters.toxicity import Toxicity, ToxicityConfig  # noqa: E402
from harness.data.patterns import PatternConfig, PatternCounter  # noqa: E402
from harness.data.row import row_texts  # noqa: E402
from harness.stats.proportion import wilson_interval  # noqa: E402

STRUCTURED = [entity for entity in ENTITIES if entity != "PERSON"]
STOCK = ["CREDIT_CARD", "IBAN_CODE", "US_SSN", "PHONE_NUMBER", "EMAIL_ADDRESS", "IP_ADDRESS"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    data = parser.parse_args().data
    rows = natural_rows(data)
    personal_data_quality(data)
    rule_quality("Legal", Legal(LegalConfig()), "legal", lambda f, row: f.findings(row["text"]))
    rule_quality("Quality", Quality(QualityConfig()), "quality", lambda f, row: f.findings(row))
    toxicity_quality(data, rows)
    on_public_rows(rows)
    speed(data, rows)


def personal_data_quality(data: Path) -> None:
    ours = PersonalData(PersonalDataConfig())
    engines = {"this filter": _spans(ours), "presidio alone": presidio_spans(stock_engine())}
    sets = {"own rows": own_personal_data(), "public rows": shared_personal_data(data)}
    print("## Personal data\n")
    print("| rows | detector | entity | labels | precision | recall |")
    print("| --- | --- | --- | ---: | --- | --- |")
    for rows_name, labelled in sets.items():
        for name, find in engines.items():
            scores = span_scores(labelled, find)
            for entity in STRUCTURED:
                if entity in scores and (name == "this filter" or entity in STOCK):
                    print_score([rows_name, name, entity], scores[entity])
    generated_identifiers(ours)


def generated_identifiers(ours: PersonalData) -> None:
    """Recall on identifiers made by faker, where it is installed: formats that nobody here wrote down."""
    try:
        from faker import Faker
    except ModuleNotFoundError:
        print("\n(generated identifiers left out: the package faker is not installed)\n")
        return
    sentences = {"PHONE_NUMBER": "Call me at {} please.", "CREDIT_CARD": "Pay with {} today.", "US_SSN": "SSN {}."}
    print("\nRecall on identifiers made by faker, 300 of each entity and locale, in a sentence and alone:\n")
    print("| locale | entity | in a sentence | alone |\n| --- | --- | --- | --- |")
    for locale in ("en_US", "en_GB", "de_DE", "fr_FR", "it_IT", "en_AU"):
        fake = Faker(locale)
        fake.seed_instance(7)
        makers = {"PHONE_NUMBER": fake.phone_number, "CREDIT_CARD": fake.credit_card_number, "IBAN_CODE": fake.iban}
        if locale == "en_US":
            makers |= {"US_SSN": fake.ssn, "EMAIL_ADDRESS": fake.email, "IP_ADDRESS": fake.ipv4_public}
            makers |= {"IP_ADDRESS (v6)": fake.ipv6}
        for kind, make in makers.items():
            values = [make() for _ in range(300)]
            cells = []
            for sentence in (sentences.get(kind, "It is {} now."), "{}"):
                found = ({span.entity for span in ours.spans(sentence.format(value))} for value in values)
                cells.append(share(sum(kind.split(" ")[0] in entities for entities in found), 300))
            print(f"| {locale} | {kind} | " + " | ".join(cells) + " |")
    print()


def rule_quality(title: str, filter_: Any, name: str, find: Callable[[Any, Any], Sequence[tuple[str, str]]]) -> None:
    rows = own(name)
    scores = rule_scores((row["rule"], {rule for rule, _ in find(filter_, row)}) for row in rows)
    print(f"## {title} ({len(rows)} own rows)\n\n| rule | labels | precision | recall |\n| --- | ---: | --- | --- |")
    for rule in sorted(scores):
        print_score([rule], scores[rule])
    print()


def toxicity_quality(data: Path, rows: Sequence[Any]) -> None:
    labelled = shared_toxicity(data)
    worst = _worst(Toxicity(ToxicityConfig()), [text for text, _ in labelled])
    long = [row["output"] for row in rows if 120 < len(row["output"].split()) < 250]
    toxic = [text for text, is_toxic in labelled if is_toxic]
    hidden = [f"{(half := long[i % len(long)].split('. '))[0]}. {t} {'. '.join(half[1:])}" for i, t in enumerate(toxic)]
    in_passages = _worst(Toxicity(ToxicityConfig()), hidden)
    whole = Toxicity(ToxicityConfig(passage_words=100_000))
    as_one = _worst(whole, hidden)
    print("## Toxicity (500 public comments, 255 toxic; the same 255 inside answers of 120 to 250 words)\n")
    print("| threshold | precision | recall | recall inside long answers | the same, answer scored as one |")
    print("| ---: | --- | --- | --- | --- |")
    for threshold in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        pairs = [(score >= threshold, is_toxic) for score, (_, is_toxic) in zip(worst, labelled, strict=True)]
        score = Score(pairs.count((True, True)), pairs.count((True, False)), pairs.count((False, True)))
        cells = [precision(score), recall(score)]
        cells += [share(sum(s >= threshold for s in scores), len(scores)) for scores in (in_passages, as_one)]
        print(f"| {threshold} | " + " | ".join(cells) + " |")
    print()


def on_public_rows(rows: Sequence[Any]) -> None:
    """How much each filter takes of rows that were published as training data."""
    print(f"## Findings on {len(rows)} public rows\n\n| filter | rows found | kinds |\n| --- | --- | --- |")
    for name, filter_ in filters().items():
        judged = [judgement for judgement in filter_.judge(rows) if judgement.reason]
        kinds = sorted({kind for judgement in judged for kind in judgement.evidence})
        counted = ", ".join(f"{kind} {sum(kind in j.evidence for j in judged)}" for kind in kinds)
        print(f"| {name} | {len(judged)} ({len(judged) / len(rows):.2%}) | {counted} |")
    print()


def speed(data: Path, rows: Sequence[Any]) -> None:
    characters = sum(len(text) for row in rows for _, text in row_texts(row)) / len(rows)
    print(f"## Speed: rows/s of CPU time, one process, {len(rows)} public rows of {characters:.0f} characters\n")
    print("| what | rows/s |\n| --- | ---: |")
    for name, filter_ in filters().items():
        print(f"| {name} | {rate(filter_.judge, rows):,.0f} |")
    counter = PatternCounter(PatternConfig())
    print(f"| pattern report, reading | {rate(counter.update, rows, 1):,.0f} |")
    start = time.process_time()
    patterns = len(counter.report())
    print(f"\nThe pattern report itself ({patterns} patterns) took {time.process_time() - start:.1f} s.")
    print()
    print(
        "Personal data beside presidio's AnalyzerEngine (blank spaCy pipeline, row by row), in turn on the same rows:\n"
    )
    print("| rows | this filter | presidio, its own recognisers | presidio, our recognisers | ratios |")
    print("| --- | ---: | ---: | ---: | --- |")
    dense = [{"instruction": "", "input": "", "output": text} for text, _ in own_personal_data()]
    dense += [{"instruction": "", "input": "", "output": text} for text, _ in shared_personal_data(data)]
    for name, batch in (("public rows", rows[::4]), ("labelled rows, nearly each with identifiers", dense)):
        ours, *theirs = [
            rate(judge, batch, repeats=2) for judge in (_ours(), _alone(stock_engine()), _alone(our_engine()))
        ]
        ratios = ", ".join(f"{ours / other:.1f}×" for other in theirs)
        print(f"| {name} | {ours:,.0f} | " + " | ".join(f"{other:,.0f}" for other in theirs) + f" | {ratios} |")


def filters() -> dict[str, Any]:
    return {
        "personal_data": PersonalData(PersonalDataConfig()),
        "toxicity": Toxicity(ToxicityConfig()),
        "legal": Legal(LegalConfig()),
        "quality": Quality(QualityConfig()),
    }


def stock_engine() -> Any:
    """Presidio with its own recognisers of the same entities; the list of domains is the shipped one, not fetched."""
    import tldextract
    from presidio_analyzer import predefined_recognizers as stock

    tldextract.extract = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
    makers = (stock.CreditCardRecognizer, stock.IbanRecognizer, stock.UsSsnRecognizer, stock.EmailRecognizer)
    return engine([make() for make in makers] + [stock.IpRecognizer(), stock.PhoneRecognizer()], STOCK)


def our_engine() -> Any:
    from harness.data.filters.personal_data_recognizers import recognizers

    return engine(list(recognizers(STRUCTURED, REGIONS).values()), STRUCTURED)


def engine(recognizers: list[Any], entities: list[str]) -> Callable[[str], Any]:
    import spacy
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    class Blank(SpacyNlpEngine):
        def __init__(self) -> None:
            super().__init__()
            self.nlp = {"en": spacy.blank("en")}

        def load(self) -> None: ...

    registry = RecognizerRegistry(recognizers=recognizers, supported_languages=["en"])
    analyzer = AnalyzerEngine(registry=registry, nlp_engine=Blank(), supported_languages=["en"])
    return lambda text: analyzer.analyze(text, language="en", entities=entities, score_threshold=0.4)


def presidio_spans(analyze: Callable[[str], Any]) -> Callable[[str], Spans]:
    return lambda text: {(found.entity_type, found.start, found.end) for found in analyze(text)}


def rate(judge: Callable[[Sequence[Any]], Any], rows: Sequence[Any], repeats: int = 2) -> float:
    """The best of some runs, after a first one that loads what is loaded once."""
    judge(rows[:20])
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        for first in range(0, len(rows), 2000):
            judge(rows[first : first + 2000])
        best = min(best, time.process_time() - start)
    return len(rows) / best


def print_score(cells: list[str], score: Score) -> None:
    print("| " + " | ".join([*cells, str(score.hit + score.missed), precision(score), recall(score)]) + " |")


def precision(score: Score) -> str:
    return share(score.hit, score.hit + score.false)


def recall(score: Score) -> str:
    return share(score.hit, score.hit + score.missed)


def share(successes: int, n: int) -> str:
    if n == 0:
        return "none"
    low, high = wilson_interval(successes, n)
    return f"{successes / n:.2f} ({low:.2f}–{high:.2f})"


def _spans(filter_: PersonalData) -> Callable[[str], Spans]:
    return lambda text: {(span.entity, span.start, span.end) for span in filter_.spans(text)}


def _worst(filter_: Toxicity, texts: Sequence[str]) -> list[float]:
    from harness.data.filters.toxicity import passages

    return [max(filter_.scores(passages(text, filter_.config.passage_words))) for text in texts]


def _ours() -> Callable[[Sequence[Any]], Any]:
    return PersonalData(PersonalDataConfig(action="drop")).judge


def _alone(analyze: Callable[[str], Any]) -> Callable[[Sequence[Any]], Any]:
    return lambda rows: [analyze(text) for row in rows for _, text in row_texts(row)]


if __name__ == "__main__":
    main()
