"""The data card: nothing from the data becomes markup, and nothing personal is shown."""

import re

from hypothesis import given
from hypothesis import strategies as st

from harness.config.data import AuditConfig
from harness.data.audit import card_lines, cell
from harness.data.tally import masked
from harness.records.stages import Dataset, FilterFinding, SourceCount

HOSTILE = "a|b\n# heading <script>alert(1)</script> [link](https://evil.example) `code` **bold** \x1b[31m"


def dataset(text: str) -> Dataset:
    source = SourceCount(
        source=text, path=text, licence=text, role="domain", sha256="s", read=5, kept=3, quarantined={"duplicate": 2}
    )
    finding = FilterFinding(code=text, action="drop", rows=2, by_source={text: 2}, kinds={text: 1}, examples=[text])
    return Dataset(
        rows=3, sha256="r", sources=[source], decontaminated_against="d", evaluation_items=7, covered={text: 7},
        findings=[finding], conflicts=1, patterns=[text], notes=[text], broken_limits=[text],
    )  # fmt: skip


@given(st.just(HOSTILE) | st.text())
def test_text_from_data_stays_text(text: str) -> None:
    lines = list(card_lines(dataset(text), AuditConfig()))
    plain = list(card_lines(dataset("x"), AuditConfig()))
    assert [line[:2] in ("# ", "##") for line in lines] == [line[:2] in ("# ", "##") for line in plain]
    for line, expected in zip(lines, plain, strict=True):
        assert line.isprintable()
        assert not re.search(r"(?<!\\)<", line)
        assert len(re.findall(r"(?<!\\)\|", line.replace(r"\\", ""))) == expected.count("|")


@given(st.text())
def test_a_cell_is_one_line(text: str) -> None:
    assert len(cell(text).splitlines()) <= 1


def test_addresses_and_numbers_are_masked() -> None:
    shown = masked("Card 4111 1111 1111 1111, IBAN GB82 WEST 1234 5698 7654 32, mail j.roe@b.co.uk, room 12")
    assert shown == "Card <number>, IBAN GB82 WEST <number>, mail <e-mail>, room 12"
    assert len(masked("word " * 100)) == 160
