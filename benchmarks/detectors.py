"""Precision, recall and speed of the data filters, with presidio alone on the same rows beside them.

    python benchmarks/detectors.py --data DATA

DATA is a folder of public rows, labelled ones among them (benchmarks/README.md). Prints Markdown.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from clean_rows import Row, natural_rows
from common import header, row
from labelled import (
    Score,
    Spans,
    own,
    own_personal_data,
    rule_scores,
    shared_personal_data,
    shared_toxicity,
    span_scores,
)

from harness.data.filters.legal import Legal, LegalConfig
from harness.data.filters.personal_data import ENTITIES, REGIONS, PersonalData, PersonalDataConfig
from harness.data.filters.quality import Quality, QualityConfig
from harness.data.filters.toxicity import Toxicity, ToxicityConfig, passages
from harness.data.patterns import PatternConfig, PatternCounter
from harness.data.row import row_texts
from harness.stats.proportion import wilson_interval

STRUCTURED = [entity for entity in ENTITIES if entity != "PERSON"]
STOCK = ["CREDIT_CARD", "IBAN_CODE", "US_SSN", "PHONE_NUMBER", "EMAIL_ADDRESS", "IP_ADDRESS"]


def main() -> None:
    given = options()
    rows = natural_rows(given.data)
    rows = rows[:: max(1, len(rows) // given.rows)] if given.rows else rows
    personal_data_quality(given.data)
    legal, quality = Legal(LegalConfig()), Quality(QualityConfig())
    rule_quality("Legal", "legal", lambda values: legal.findings(values["text"]))
    rule_quality("Quality", "quality", quality.findings)
    toxicity_quality(given.data, rows)
    on_public_rows(rows)
    speed(given.data, rows)


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; exits with 2 where one is missing or unknown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, help="about this many of the public rows, evenly spaced; default: all")
    return parser.parse_args(arguments)


def personal_data_quality(data: Path) -> None:
    ours = PersonalData(PersonalDataConfig())
    engines = {"this filter": _spans(ours), "presidio alone": presidio_spans(stock_engine())}
    sets = {"own rows": own_personal_data(), "public rows": shared_personal_data(data)}
    print("## Personal data\n")
    header("rows", "detector", "entity", "labels", "precision", "recall")
    for rows_name, labelled in sets.items():
        for name, find in engines.items():
            scores = span_scores(labelled, find)
            for entity in STRUCTURED:
                if entity in scores and (name == "this filter" or entity in STOCK):
                    score_row(scores[entity], rows_name, name, entity)
    generated_identifiers(ours)


def generated_identifiers(ours: PersonalData) -> None:
    """Recall on identifiers made by faker, where it is installed: formats that nobody here wrote down."""
    try:
        from faker import Faker
    except ModuleNotFoundError:
        print("\n(no generated identifiers: the package faker is not installed)\n")
        return
    sentences = {"PHONE_NUMBER": "Call me at {} please.", "CREDIT_CARD": "Pay with {} today.", "US_SSN": "SSN {}."}
    print("\nRecall on identifiers made by faker, 300 of each entity and locale, in a sentence and alone:\n")
    header("locale", "entity", "in a sentence", "alone")
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
            row(locale, kind, *cells)
    print()


def rule_quality(title: str, name: str, find: Callable[[Any], Sequence[tuple[str, str]]]) -> None:
    rows = own(name)
    scores = rule_scores((values["rule"], {rule for rule, _ in find(values)}) for values in rows)
    print(f"## {title} ({len(rows)} own rows)\n")
    header("rule", "labels", "precision", "recall")
    for rule in sorted(scores):
        score_row(scores[rule], rule)
    print()


def toxicity_quality(data: Path, rows: Sequence[Row]) -> None:
    comments = shared_toxicity(data)
    worst = _worst(Toxicity(ToxicityConfig()), [text for text, _ in comments])
    long = [r["output"] for r in rows if 120 < len(r["output"].split()) < 250]
    toxic = [text for text, is_toxic in comments if is_toxic]
    hidden = [f"{(half := long[i % len(long)].split('. '))[0]}. {t} {'. '.join(half[1:])}" for i, t in enumerate(toxic)]
    in_passages = _worst(Toxicity(ToxicityConfig()), hidden)
    whole = Toxicity(ToxicityConfig(passage_words=100_000))
    as_one = _worst(whole, hidden)
    print("## Toxicity (500 public comments, 255 toxic; the same 255 inside answers of 120 to 250 words)\n")
    header("threshold", "precision", "recall", "recall inside long answers", "the same, answer scored as one")
    for threshold in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        pairs = [(score >= threshold, is_toxic) for score, (_, is_toxic) in zip(worst, comments, strict=True)]
        score = Score(pairs.count((True, True)), pairs.count((True, False)), pairs.count((False, True)))
        inside = [share(sum(s >= threshold for s in scores), len(scores)) for scores in (in_passages, as_one)]
        row(threshold, precision(score), recall(score), *inside)
    print()


def on_public_rows(rows: Sequence[Row]) -> None:
    """How much each filter takes of rows that were published as training data."""
    print(f"## Findings on {len(rows)} public rows\n")
    header("filter", "rows found", "kinds")
    for name, filter_ in filters().items():
        judged = [judgement for judgement in filter_.judge(rows) if judgement.reason]
        kinds = sorted({kind for judgement in judged for kind in judgement.evidence})
        counted = ", ".join(f"{kind} {sum(kind in j.evidence for j in judged)}" for kind in kinds)
        row(name, f"{len(judged)} ({len(judged) / len(rows):.2%})", counted)
    print()


def speed(data: Path, rows: Sequence[Row]) -> None:
    characters = sum(len(text) for r in rows for _, text in row_texts(r)) / len(rows)
    print(f"## Speed: rows/s of CPU time, one process, {len(rows)} public rows of {characters:.0f} characters\n")
    header("what", "rows/s")
    for name, filter_ in filters().items():
        row(name, f"{rate(filter_.judge, rows):,.0f}")
    counter = PatternCounter(PatternConfig())
    row("pattern report, reading", f"{rate(counter.update, rows, 1):,.0f}")
    start = time.process_time()
    patterns = len(counter.report())
    print(f"\nThe pattern report itself ({patterns} patterns) took {time.process_time() - start:.1f} s.\n")
    print("Personal data beside presidio's AnalyzerEngine (blank spaCy pipeline, row by row) on the same rows:\n")
    header("rows", "this filter", "presidio, its own recognisers", "presidio, our recognisers", "ratios")
    dense = [{"instruction": "", "input": "", "output": text} for text, _ in own_personal_data()]
    dense += [{"instruction": "", "input": "", "output": text} for text, _ in shared_personal_data(data)]
    for name, batch in (("public rows", rows[::4]), ("labelled rows, nearly each with identifiers", dense)):
        ours, *theirs = [
            rate(judge, batch, repeats=2) for judge in (_ours(), _alone(stock_engine()), _alone(our_engine()))
        ]
        ratios = ", ".join(f"{ours / other:.1f}×" for other in theirs)
        row(name, f"{ours:,.0f}", *(f"{other:,.0f}" for other in theirs), ratios)


def filters() -> dict[str, Any]:
    return {
        "personal_data": PersonalData(PersonalDataConfig()),
        "toxicity": Toxicity(ToxicityConfig()),
        "legal": Legal(LegalConfig()),
        "quality": Quality(QualityConfig()),
    }


def stock_engine() -> Any:
    """Presidio with its own recognisers of the same entities; the list of domains is the shipped one, not fetched."""
    from presidio_analyzer import predefined_recognizers as stock
    from tldextract import tldextract

    tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
    makers = (stock.CreditCardRecognizer, stock.IbanRecognizer, stock.UsSsnRecognizer, stock.EmailRecognizer)
    return engine([make() for make in makers] + [stock.IpRecognizer(), stock.PhoneRecognizer()], STOCK)


def our_engine() -> Any:
    from harness.data.filters.personal_data_recognizers import recognizers

    return engine(list(recognizers(STRUCTURED, REGIONS).values()), STRUCTURED)


def engine(recognizers: list[Any], entities: Sequence[str]) -> Callable[[str], Any]:
    import spacy
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    class Blank(SpacyNlpEngine):
        nlp: Any

        def __init__(self) -> None:
            super().__init__()
            self.nlp = {"en": spacy.blank("en")}

        def load(self) -> None: ...

    registry = RecognizerRegistry(recognizers=recognizers, supported_languages=["en"])
    analyzer = AnalyzerEngine(registry=registry, nlp_engine=Blank(), supported_languages=["en"])
    return lambda text: analyzer.analyze(text, language="en", entities=list(entities), score_threshold=0.4)


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


def score_row(score: Score, *cells: str) -> None:
    row(*cells, score.hit + score.missed, precision(score), recall(score))


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
    return [max(filter_.scores(passages(text, filter_.config.passage_words))) for text in texts]


def _ours() -> Callable[[Sequence[Any]], Any]:
    return PersonalData(PersonalDataConfig(action="drop")).judge


def _alone(analyze: Callable[[str], Any]) -> Callable[[Sequence[Any]], Any]:
    return lambda rows: [analyze(text) for r in rows for _, text in row_texts(r)]


if __name__ == "__main__":
    main()
