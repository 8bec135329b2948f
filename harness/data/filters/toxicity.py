"""The filter `toxicity`: a linear model that ships with its weights (alt-profanity-check), or detoxify if installed."""

import re
import warnings
from collections.abc import Callable, Sequence, Set
from functools import lru_cache
from typing import Any, Literal

from harness.config.group import Count, Group, Share
from harness.core.errors import MissingDependency
from harness.data.filters.protocol import CLEAN, Judgement
from harness.data.row import DataRow, answer_of, map_texts, row_texts

REMOVED = "[removed]"
_SENTENCE_END = re.compile(r"((?<=[.!?])\s+|\n+)")
# Names of groups of people. The model learned from comments in which they stand beside abuse, and takes the name alone
# for abuse; with another word in its place, what is said of the group decides. Slurs are not in the list.
_IDENTITY = re.compile(
    r"\b(?:gays?|lesbians?|homosexual(?:s|ity)?|bisexuals?|trans(?:gender(?:ed)?|sexuals?)?|queers?|non-?binary|lgbtq?\+?|"
    r"straight|heterosexuals?|muslims?|islam(?:ic)?|jews?|jewish|judaism|christians?|catholics?|hindus?|buddhists?|sikhs?|"
    r"atheists?|blacks?|whites?|asians?|africans?|african-americans?|arabs?|latin[oax]s?|hispanics?|mexicans?|indians?|"
    r"chinese|pakistanis?|roma|romani|immigrants?|migrants?|refugees?|foreigners?|disabled|autistic|deaf|blind|women|woman|"
    r"females?|girls?)\b",
    re.IGNORECASE,
)
Scorer = Callable[[Sequence[str]], Sequence[float]]


class ToxicityConfig(Group):
    """When a row is toxic, and which model says so."""

    action: Literal["drop", "redact", "flag"] = "drop"
    """What happens to the row: dropped, kept with placeholders, or kept and counted."""

    threshold: Share = 0.7
    """Least score of one passage that makes the row toxic."""

    passage_words: Count = 12
    """Fewest words of a passage (whole sentences); in longer ones harmless words hide a toxic sentence."""

    model: Literal["profanity_check", "detoxify"] = "profanity_check"
    """Classifier; detoxify needs the extra `detoxify`."""

    detoxify_variant: Literal["original", "unbiased", "multilingual", "original-small", "unbiased-small"] = "original"
    """Variant of detoxify."""

    detoxify_checkpoint: str | None = None
    """Local file of detoxify's weights; null: downloaded."""


class Toxicity:
    code = "toxicity"

    def __init__(self, config: ToxicityConfig):
        self.config = config

    def judge(self, rows: Sequence[DataRow]) -> list[Judgement]:
        """One call of the model for all passages of all rows."""
        parts = [(n, place, text) for n, row in enumerate(rows) for place, text in row_texts(row)]
        read = [
            (n, place, passage) for n, place, text in parts for passage in passages(text, self.config.passage_words)
        ]
        worst: list[tuple[float, str]] = [(0.0, "")] * len(rows)
        toxic: list[set[str]] = [set() for _ in rows]
        for (owner, place, passage), score in zip(read, self.scores([p for _, _, p in read]), strict=True):
            worst[owner] = max(worst[owner], (score, place), key=lambda scored: scored[0])
            if score >= self.config.threshold:
                toxic[owner].add(passage)
        return [self._judgement(row, *worst[n], toxic[n]) for n, row in enumerate(rows)]

    def scores(self, texts: Sequence[str]) -> list[float]:
        """The model's probability for each text, 0 to 1."""
        return (
            [float(score) for score in _scorer(self.config)([_IDENTITY.sub("tall", t) for t in texts])] if texts else []
        )

    def _judgement(self, row: DataRow, score: float, place: str, toxic: Set[str]) -> Judgement:
        if score < self.config.threshold:
            return CLEAN
        masked = self._masked(row, toxic) if self.config.action == "redact" else None
        return Judgement(f"score {score:.2f} in {place}", masked, evidence=(place.split(" ")[0],))

    def _masked(self, row: DataRow, toxic: Set[str]) -> DataRow | None:
        """The row with its toxic passages masked; None when that leaves nothing of the answer."""
        words = self.config.passage_words
        changed = map_texts(row, lambda text: masked(text, words, toxic))
        return None if answer_of(changed).replace(REMOVED, "").strip() == "" else changed


def passages(text: str, least_words: int) -> list[str]:
    """The text as runs of whole sentences with at least `least_words` words. A shorter rest is a passage of its own."""
    found = [" ".join(run) for run in _runs(_SENTENCE_END.split(text)[::2], least_words)]
    return [passage for passage in found if passage.strip()]


def masked(text: str, least_words: int, toxic: Set[str]) -> str:
    """The text with each passage in `toxic` masked. Line breaks and spaces around it stay."""
    parts = _SENTENCE_END.split(text)  # sentences at even places, the separators between them at odd ones
    at = 0
    for run in _runs(parts[::2], least_words):
        end = at + 2 * len(run)
        if " ".join(run) in toxic:
            parts[at : end - 1] = [REMOVED] + [""] * (2 * len(run) - 2)
        at = end
    return "".join(parts)


def _runs(sentences: Sequence[str], least_words: int) -> list[list[str]]:
    runs: list[list[str]] = []
    current: list[str] = []
    words = 0
    for sentence in sentences:
        current.append(sentence)
        words += sentence.count(" ") + 1
        if words >= least_words:
            runs.append(current)
            current, words = [], 0
    return [*runs, current] if current else runs


@lru_cache(maxsize=2)
def _scorer(config: ToxicityConfig) -> Scorer:
    return _detoxify(config) if config.model == "detoxify" else _profanity_check()


def _profanity_check() -> Scorer:
    try:
        from sklearn.exceptions import InconsistentVersionWarning

        with warnings.catch_warnings():
            # Each release is pickled with the scikit-learn it pins; the linear model itself has not changed for years.
            warnings.simplefilter("ignore", InconsistentVersionWarning)
            from profanity_check import predict_prob
    except ModuleNotFoundError as error:
        raise MissingDependency(str(error.name), "the toxicity filter", "data") from None
    return predict_prob  # type: ignore[no-any-return]


def _detoxify(config: ToxicityConfig) -> Scorer:
    try:
        from detoxify import Detoxify
    except ModuleNotFoundError as error:
        raise MissingDependency(str(error.name), "toxicity.model=detoxify", "detoxify") from None
    model: Any = Detoxify(config.detoxify_variant, checkpoint=config.detoxify_checkpoint)

    def scores(texts: Sequence[str]) -> list[float]:
        found: list[float] = []
        for start in range(0, len(texts), 32):
            batch = model.predict(list(texts[start : start + 32]))["toxicity"]
            found += batch if isinstance(batch, list) else [batch]
        return found

    return scores
