import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_views import HOSTILE, HOSTILE_VIEW, PLAIN, make_flip, make_verdict

from harness.records.gate import Comparison
from harness.report.html import FLIPS_SHOWN, write_html
from harness.report.view import RunView

FETCHING = {"src", "srcset", "href", "xlink:href", "action", "data", "poster", "background", "formaction"}
VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """Elements, attributes and text of a page as a browser reads them."""

    def __init__(self, path: Path):
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index.html"


def test_hostile_text_stays_text(path: Path) -> None:
    write_html(HOSTILE_VIEW, path)
    page = Page(path)
    assert page.open == []
    assert "script" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    # name (title and heading), reason, prompt with its summary, both answers, source, template
    assert page.text.count("<script>alert(1)</script>") >= 8
    assert "\x00" not in path.read_text()
    assert "\x1b" not in path.read_text()


def test_the_page_loads_nothing(path: Path) -> None:
    write_html(HOSTILE_VIEW, path)
    page = Page(path)
    targets = [value for name, value in page.attributes if name in FETCHING]
    assert targets  # the drawings refer to their own shapes
    assert all(target.startswith("#") for target in targets)
    assert not {"link", "script", "img", "iframe", "object", "embed", "image"} & set(page.tags)
    write_html(PLAIN, path)
    assert not re.search(r"https?:|url\((?!#)|@import|//\w", path.read_text())


def test_ids_are_unique(path: Path) -> None:
    write_html(PLAIN, path)
    ids = [value for name, value in Page(path).attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_the_same_view_gives_the_same_bytes(path: Path) -> None:
    write_html(PLAIN, path)
    first = path.read_bytes()
    write_html(PLAIN, path)
    assert path.read_bytes() == first


def test_numbers_and_words_a_reader_needs(path: Path) -> None:
    write_html(PLAIN, path)
    page = Page(path)
    for words in (
        "✕ FAIL", "must not replace the baseline", "2 of 4 deciding metrics passed", "71.2%", "65.1%", "-6.1 points",
        "[-9.4, -2.8]", "margin 2.0 points", "floor 90.0%", "38 worse, 13 better", "needs about 1,380 items in all",
        "61 near-duplicate, 28 contradicts disclaimer", "2.8112 → 1.1934", "121,000 (38.8%)", "knowledge/acc: 1 worse",
        "0, 2", "harness run experiment=disclaimer", "824 prompts checked",
    ):  # fmt: skip
        assert words in page.text, words
    assert page.text.count("1,380 items") == 1
    assert "An info metric" in page.text
    assert page.tags.count("svg") == 3
    assert page.tags.count("th") == page.attributes.count(("scope", "col")) + page.attributes.count(("scope", "row"))


def test_what_the_audit_found_is_on_the_page(path: Path) -> None:
    write_html(PLAIN, path)
    text = Page(path).text
    for told in (
        "2,304 rows for training and 96 for validation, checked for overlap with 964 evaluation items",
        "toxicity: 9 rows found",
        "personal_data",
        "14% of answers start with",
        "3 questions with several different answers",
        "names were not looked for",
        "f" * 64,
    ):
        assert told in text


def test_a_gate_folder_without_training_is_enough(path: Path) -> None:
    view = RunView(
        name="gate", run_id="", created="", verdict=make_verdict([], "INVALID", ["prompt contracts differ"]),
        comparison=PLAIN.comparison.model_copy(update={"flips": [], "faults": ["other templates"]}),
    )  # fmt: skip
    write_html(view, path)
    page = Page(path)
    for words in (
        "! INVALID",
        "prompt contracts differ",
        "other templates",
        "No metric was tested",
        "No item's score changed",
    ):
        assert words in page.text
    assert "svg" not in page.tags


def test_long_lists_of_flips_are_cut_and_say_so(path: Path) -> None:
    flips = [make_flip("?", ("a", "b"), (1.0, 0.0), item=str(i)) for i in range(FLIPS_SHOWN + 3)]
    comparison = Comparison.model_validate({**PLAIN.comparison.model_dump(), "flips": flips})
    write_html(replace(PLAIN, comparison=comparison, dataset=None), path)
    page = Page(path)
    assert page.tags.count("details") == FLIPS_SHOWN
    assert "knowledge/acc: 103 worse" in page.text
    assert "3 more are in compare.json" in page.text


def test_names_that_mean_something_to_matplotlib(path: Path) -> None:
    metrics = [metric.model_copy(update={"task": f"{HOSTILE} $\\frac{{1}}$ 検査"}) for metric in PLAIN.verdict.metrics]
    write_html(replace(PLAIN, verdict=make_verdict(metrics, "FAIL", [])), path)
    page = Page(path)
    assert page.tags.count("svg") == 3
    assert "script" not in page.tags
