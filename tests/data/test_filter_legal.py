"""Legal: notices and markings, verbatim licence text, and which licences a source may have."""

import random
import re
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled import own, rule_scores

from harness.config.experiment import validate
from harness.core.errors import DataError
from harness.data.filters.legal import _NEEDED, RULES, Legal, LegalConfig
from harness.data.fingerprints import Fingerprints
from harness.data.licences import LIMITS, LicencePolicy, judge_licence, judge_licences, spdx_name

ROOT = Path(__file__).parents[2]
APACHE = (ROOT / "LICENSE").read_text()


def legal(**values: Any) -> Legal:
    return Legal(validate(LegalConfig, values))


def row(output: str, **values: str) -> dict[str, str]:
    return {"id": "1", "source": "s", "instruction": "Say it.", "input": "", "output": output, "topic": "", **values}


def words(text: str, start: int, count: int) -> str:
    return " ".join(text.split()[start : start + count])


@pytest.mark.parametrize("rule", RULES)
def test_own_labelled_rows(rule: str) -> None:
    rows = own("legal")
    assert len(rows) > 100
    score = rule_scores((r["rule"], {name for name, _ in legal().findings(r["text"])}) for r in rows)[rule]
    assert score.hit + score.missed >= 12
    assert score.recall >= 0.9, score
    assert score.precision >= 0.9, score


def test_reason_names_rule_wording_and_place() -> None:
    judged = legal().judge([row("CONFIDENTIAL\nPrices", input="© 2020 Example Press")])[0]
    assert (
        judged.reason
        == "copyright_notice ('© 2020 Example Press') in input; confidential_marking ('CONFIDENTIAL') in output"
    )
    assert judged.evidence == ("confidential_marking", "copyright_notice")


def test_redaction_takes_the_notice_out_and_keeps_the_answer() -> None:
    said = "The rate is two per cent. It changes in May.\n© 2020 Example Press. All rights reserved.\nAsk your branch."
    judged = legal(action="redact").judge([row(said)])[0]
    assert judged.redacted is not None
    assert judged.redacted["output"].split() == [
        "The",
        "rate",
        "is",
        "two",
        "per",
        "cent.",
        "It",
        "changes",
        "in",
        "May.",
        "Ask",
        "your",
        "branch.",
    ]


@pytest.mark.parametrize("said", ["All rights reserved.", words(APACHE, 100, 120)])
def test_what_cannot_be_redacted_is_dropped(said: str) -> None:
    judged = legal(action="redact").judge([row(said)])[0]
    assert judged.reason is not None
    assert judged.redacted is None


def test_rules_can_be_left_out() -> None:
    assert legal(rules=["licence_notice"]).judge([row("All rights reserved.")])[0].reason is None


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([r["text"] for r in own("legal")]), st.sampled_from([str, str.upper, str.title, str.lower]))
def test_the_plain_search_never_hides_a_notice(text: str, change: Any) -> None:
    for rule, pattern in RULES.items():
        if pattern.search(change(text)):
            assert any(word in change(text).lower() for word in _NEEDED[rule]), rule


@pytest.mark.parametrize(
    ("package", "name"),
    [("pydantic", "MIT"), ("hypothesis", "MPL-2.0"), ("numpy", "BSD-3-Clause"), ("typing_extensions", "PSF-2.0")],
)
def test_installed_licence_files_are_recognised(package: str, name: str) -> None:
    files = [f for f in distribution(package).files or [] if re.fullmatch(r"LICEN[CS]E(\.txt)?", f.name)]
    texts = [Path(str(distribution(package).locate_file(file))).read_text() for file in files]
    details = [detail for text in texts for rule, detail in legal(rules=[]).findings(text) if rule == "licensed_text"]
    known = {match.group(1) for detail in details if (match := re.search(r"words of (\S+)", detail))}
    assert known, f"no licence found in {package}"
    assert name in known or package == "numpy"


def test_long_runs_are_found_wherever_they_begin_and_short_ones_are_not() -> None:
    long = [
        legal().findings(f"My text says: {words(APACHE, start, 80)}. The end of it.") for start in range(0, 1200, 7)
    ]
    assert sum("licensed_text" in dict(found) for found in long) >= 0.99 * len(long)
    short = [legal(rules=[]).findings(words(APACHE, start, 20)) for start in range(0, 1200, 7)]
    assert not any(short)


def test_case_layout_and_punctuation_do_not_matter() -> None:
    changed = words(APACHE, 300, 100).upper().replace(" ", "\n * ").replace(",", ";")
    assert "Apache-2.0" in dict(legal(rules=[]).findings(changed))["licensed_text"]


def test_own_texts_can_be_looked_for(tmp_path: Path) -> None:
    secret = " ".join(random.Random(5).choices([f"word{i}" for i in range(500)], k=300))
    path = tmp_path / "ours.json"
    Fingerprints.of({"handbook": secret}).save(path)
    assert secret.split()[0] not in path.read_text()
    judged = legal(fingerprints=[str(path)]).judge([row(f"So: {words(secret, 50, 120)}"), row("So it is.")])
    assert [bool(j.reason and "words of handbook" in j.reason) for j in judged] == [True, False]
    path.write_text("{}")
    with pytest.raises(DataError, match="not a fingerprint file"):
        Fingerprints.load(path)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("apache-2.0", "Apache-2.0"),
        ("Apache License, Version 2.0", "Apache-2.0"),
        ("The MIT License", "MIT"),
        ("CC BY-NC 4.0", "CC-BY-NC-4.0"),
        ("Creative Commons Attribution-NonCommercial-ShareAlike 4.0 International License", "CC-BY-NC-SA-4.0"),
        ("cc-by-sa-3.0", "CC-BY-SA-3.0"),
        ("GPL v3", "GPL-3.0-only"),
        ("All Rights Reserved.", "proprietary"),
        ("whatever", None),
    ],
)
def test_licence_names_as_people_write_them(written: str, name: str | None) -> None:
    assert spdx_name(written) == name


def test_commercial_use_refuses_what_forbids_it() -> None:
    sources = {"a": "Apache-2.0", "b": "CC-BY-NC-4.0", "c": "CC-BY-ND-4.0", "d": "unheard-of", "e": "CC-BY-SA-3.0"}
    verdicts = judge_licences(sources, LicencePolicy(intended_use="commercial"))
    assert {name for name, verdict in verdicts.items() if verdict.reason} == {"b", "c", "d"}
    assert "forbids commercial use" in str(verdicts["b"].reason)
    research = judge_licences(
        sources, LicencePolicy(intended_use="research", allow=["unheard-of"], share_alike="refuse")
    )
    assert {name for name, verdict in research.items() if verdict.reason} == {"c", "e"}


def test_expressions_take_the_better_or_the_worse() -> None:
    policy = LicencePolicy(refuse=["gpl v3"])
    assert judge_licence("MIT OR CC-BY-NC-4.0", policy).reason is None
    assert judge_licence("MIT AND CC-BY-NC-4.0", policy).reason is not None
    assert "refused by the policy" in str(judge_licence("GPL-3.0-only", policy).reason)


def test_every_licence_of_the_table_is_its_own_name() -> None:
    assert len(LIMITS) > 60
    assert {name for name in LIMITS if spdx_name(name) != name} == set()
