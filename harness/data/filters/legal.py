"""The filter `legal`: notices and markings that forbid training on a text, and long runs of known licensed text."""

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

from harness.config.experiment import resolve_path
from harness.config.group import Count, Group
from harness.data.filters.protocol import CLEAN, Judgement
from harness.data.fingerprints import Fingerprints
from harness.data.row import DataRow, answer_of, map_texts, row_texts

LICENCE_TEXTS = Path(__file__).with_name("licence_texts.json")
_QUOTED = re.compile(r"[\"“”][^\"“”\n]{1,60}[\"“”]")
_SENTENCE = re.compile(r"((?<=[.!?])[ \t]+|\n+)")
_REST_OF_WORD = re.compile(r"\w*")
_YEAR = r"(?:1[89]|20)\d\d\b"
_THIS = (
    r"this (?:work|file|program|software|library|document|text|article|image|dataset|data set|material|book|page"
    r"|source code(?: form)?|package|project|content)"
)
_OPEN_LICENCE = (
    r"(?:apache|mit|bsd|gnu|gpl|lgpl|agpl|mozilla|creative commons|cc[ -]by|boost|isc|eclipse|open data"
    r"|open database|unlicense|academic free|artistic)"
)
RULES = {
    "copyright_notice": re.compile(
        r"(?:copyright|copr\.)\s*(?:©|&copy;|\(c\))\s*\S"
        rf"|(?:©|&copy;|℗|(?<!\w)\(c\))\s*{_YEAR}(?:\s*[-–,]\s*\d{{4}})*,?\s+(?-i:[A-Z])\S*\s+(?-i:[A-Z])"
        r"|©\s*(?-i:[A-Z])|&copy;|℗"
        rf"|(?-i:\b(?:Copyright|COPYRIGHT))\s+{_YEAR}(?:\s*[-–,]\s*\d{{4}})*(?:\s+(?:by\s+)?(?-i:[A-Z])|\s*[.,;\n]|$)"
        r"|\ball rights reserved\b"
        r"|\bno part of this \w+ may be (?:reproduced|copied|used)"
        r"|\bmay not be (?:published|reproduced|copied)[^.\n]{0,60}(?:redistributed|without[^.\n]{0,30}permission)"
        r"|\bunauthori[sz]ed (?:copying|reproduction|use|distribution) of (?:this|the)\b"
        r"|\breprinted (?:with|by) (?:the )?(?:kind )?permission",
        re.I,
    ),
    "licence_notice": re.compile(
        r"\bSPDX-License-Identifier:\s*\S"
        rf"|(?:^|[.\n;*#/]\s*)(?:released|distributed|licensed|published)\s+under\s+(?:the\s+)?(?:terms of )?"
        rf"[^.\n]{{0,20}}{_OPEN_LICENCE}"
        rf"|\b{_THIS}[^.\n]{{0,20}}\b(?:is|are)\b[^.\n]{{0,30}}"
        r"\b(?:licen[sc]ed|(?:available|released|distributed) under|subject to the terms)\b"
        rf"[^.\n]{{0,40}}{_OPEN_LICENCE}"
        r"|\b(?:text|content|data) is available under [^.\n]{0,20}(?:creative commons|cc[ -]by|gnu|open)"
        r"|\byou can redistribute it and/or modify it\b"
        r"|\bpermission is hereby granted, free of charge\b"
        r"|\bredistribution and use in source and binary forms\b"
        r"|\bWITHOUT ANY WARRANTY\b|\bprovided \"?as is\"?,? without warranty"
        r"|\byou should have received a copy of the (?:gnu|license)"
        r"|\b(?:licen[sc]e|licensing):\s*(?:cc[ -]|mit\b|apache|[al]?gpl|bsd|creative commons|proprietary)"
        r"|\buse of this (?:source code|software|file) is governed by\b"
        r"|\byou agree to the terms of (?:the|this) (?:end[- ]user )?licen[sc]e",
        re.I,
    ),
    "confidential_marking": re.compile(
        r"(?-i:^\W*(?:[A-Z]+ ){0,2}CONFIDENTIAL(?: [A-Z]+){0,2}\W*$)"
        r"|\bstrictly confidential\b|\bcompany[- ]confidential\b"
        r"|\bproprietary (?:and|&) confidential\b|\bconfidential (?:and|&) proprietary\b"
        r"|\bproprietary and confidential information\b"
        r"|\b(?:for )?internal use only\b|(?:^|[\[(])internal only\b|\bfor official use only\b"
        r"|\brestricted\s*[-–:]\s*(?:employees|staff|internal|members)\b"
        r"|\bclassification:\s*(?:confidential|restricted|secret|internal)"
        r"|\bthis (?:e-?mail|message|document|fax|communication|letter|memo|presentation|report)\b[^.\n]{0,60}"
        r"\b(?:is|are|contains?|under)\b[^.\n]{0,30}\b(?:confidential|privileged|proprietary|nda)\b"
        r"|\bnot (?:be )?(?:for )?(?:distribution|redistribution|circulation) outside\b"
        r"|(?:^|[.\n]\s*)do not (?:distribute|circulate)\s*(?:[.!:\n]|without|outside|$)"
        r"|\bnot the (?:intended|designated) (?:recipient|addressee)\b|\bfor the designated recipient only\b"
        r"|\bsolely for the (?:addressee|intended recipient|use of)"
        r"|(?-i:\bEMBARGOED\b)|\bembargoed until\b"
        r"|\bhold (?:this|the|such) confidential information in\b",
        re.I | re.M,
    ),
    "privilege_marking": re.compile(
        r"\battorney[-/ ]client[- ]privileged\b"
        r"|(?-i:\bATTORNEY[-/ ]CLIENT PRIVILEGE\b)"
        r"|\bprotected by (?:the )?(?:attorney[-/ ]client|legal(?: professional)?) privilege\b"
        r"|\bprivileged attorney[-/ ]client (?:communication|material)"
        r"|\bprivileged (?:and|&) confidential\b|\bconfidential (?:and|&) privileged\b"
        r"|(?:^|[.\n]\s*|\b(?:is|contains) )(?:an? )?attorney(?:'s)? work[- ]product\b"
        r"|(?-i:\bSUBJECT TO LEGAL (?:PROFESSIONAL )?PRIVILEGE\b)"
        r"|\b(?:is|are) (?:legally|subject to legal) privileged?\b"
        r"|(?-i:^\W*WITHOUT PREJUDICE\W*$)"
        r"|\bprepared (?:in anticipation of litigation|at the (?:request|direction) of (?:legal )?counsel)\b",
        re.I | re.M,
    ),
}
_NEEDED = {  # every match of a rule holds one of these; a plain search is many times faster than the rules
    "copyright_notice": (
        *("copyright", "copr.", "©", "&copy", "℗", "(c)", "all rights reserved", "unauthori", "permission"),
        *("may not be", "no part of this"),
    ),
    "licence_notice": (
        *("licen", "spdx", "redistribut", "warranty", "permission is hereby", "available under"),
        *("governed by", "published under", "distributed under", "released under", "subject to the terms"),
        "you should have received a copy",
    ),
    "confidential_marking": (
        *("confidential", "internal use only", "internal only", "official use only", "restricted", "classification:"),
        *("privileged", "proprietary", "nda", "outside", "do not distribute", "do not circulate", "recipient"),
        *("addressee", "solely for", "embargoed"),
    ),
    "privilege_marking": ("privilege", "work product", "work-product", "without prejudice", "counsel", "litigation"),
}


class LegalConfig(Group):
    """Which notices and which known licensed texts are looked for."""

    action: Literal["drop", "redact", "flag"] = "drop"
    """What happens to the row: dropped, kept with placeholders, or kept and counted."""

    rules: list[Literal["copyright_notice", "licence_notice", "confidential_marking", "privilege_marking"]] = [
        "copyright_notice",
        "licence_notice",
        "confidential_marking",
        "privilege_marking",
    ]
    """Notices that are looked for."""

    verbatim_words: Count | None = 40
    """Shortest verbatim run of a known licensed text, in words; null: texts are not looked for."""

    fingerprints: list[str] = []
    """Further files of fingerprints, made by `scripts/fingerprint_texts.py` from your own texts."""


class Legal:
    code = "legal"

    def __init__(self, config: LegalConfig):
        self.config = config

    def judge(self, rows: Sequence[DataRow]) -> list[Judgement]:
        return [self._judge(row) for row in rows]

    def _judge(self, row: DataRow) -> Judgement:
        found = [(rule, detail, where) for where, text in row_texts(row) for rule, detail in self.findings(text)]
        if not found:
            return CLEAN
        reason = "; ".join(f"{rule} ({detail}) in {where}" for rule, detail, where in found)
        masked = self._masked(row) if self.config.action == "redact" else None
        return Judgement(reason, masked, evidence=tuple(sorted({rule for rule, _, _ in found})))

    def _masked(self, row: DataRow) -> DataRow | None:
        """The row without the lines and sentences that hold a notice.

        None where that does not help (licensed text, a notice over several lines) or leaves no answer.
        """
        changed = map_texts(row, self._without_notices)
        still = any(self.findings(text) for _, text in row_texts(changed))
        return None if still or not answer_of(changed).strip() else changed

    def _without_notices(self, text: str) -> str:
        parts = _SENTENCE.split(text)  # sentences at even places, the separators between them at odd ones
        kept = [part for i, part in enumerate(parts) if i % 2 or not self._notices(part)]
        return "".join(kept).strip() if len(kept) < len(parts) else text

    def findings(self, text: str) -> list[tuple[str, str]]:
        """(rule, wording) for each rule that a text breaks. A wording in quotation marks is not a notice."""
        return [*self._notices(text), *self._verbatim(text)]

    def _notices(self, text: str) -> list[tuple[str, str]]:
        lowered = text.lower()
        rules = [rule for rule in self.config.rules if any(word in lowered for word in _NEEDED[rule])]
        if not rules:
            return []
        own_voice = _QUOTED.sub(lambda quoted: quoted.group(0) if "as is" in quoted.group(0).lower() else " ", text)
        matches = ((rule, RULES[rule].search(own_voice)) for rule in rules)
        return [(rule, _shown(own_voice, match)) for rule, match in matches if match]

    def _verbatim(self, text: str) -> list[tuple[str, str]]:
        if self.config.verbatim_words is None or text.count(" ") < self.config.verbatim_words - 1:
            return []
        runs = (
            (name, words)
            for known in _known_texts(tuple(self.config.fingerprints))
            for name, words in known.runs(text, self.config.verbatim_words).items()
        )
        longest = max(runs, key=lambda run: run[1], default=None)
        return [("licensed_text", f"about {longest[1]} words of {longest[0]}")] if longest else []


@lru_cache(maxsize=4)
def _known_texts(files: tuple[str, ...]) -> list[Fingerprints]:
    return [Fingerprints.load(LICENCE_TEXTS), *(Fingerprints.load(resolve_path(file)) for file in files)]


def _shown(text: str, match: re.Match[str]) -> str:
    """The wording, extended to the end of its last word."""
    whole = match.group(0) + _REST_OF_WORD.match(text, match.end()).group(0)  # type: ignore[union-attr]
    words = " ".join(whole.split())
    return f"'{words}'" if len(words) <= 60 else f"'{words[:57]}…'"
