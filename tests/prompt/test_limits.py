"""A template is a stranger's program: it is stopped in time, and never fills the memory."""

import time
from pathlib import Path
from typing import Any

import pytest
from stock_templates import tokenizer, turns

from harness.config.experiment import TemplateConfig
from harness.core.errors import TemplateRefusal, UsageError
from harness.prompt.contract import Contract
from harness.prompt.make import make_contract
from harness.prompt.render import Renderer

PLAIN = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


def draft(template: str) -> dict[str, Any]:
    return {"template": template, "template_kwargs": {}}


GREEDY = {
    "nested loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "a huge string": "{{ 'a' * 10000000000 }}",
    "a huge format": "{{ '%9999999999d' % 3 }}",
    "a doubling string": "{% set n = namespace(s='ab') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
    "a huge list": "{{ ([0] * 10000000000) | length }}",
    "padding": "{{ 'x' | center(99999999999) }}",
    "a power": "{{ (9 ** 9999999) | string | length }}",
    "a quadratic filter": "{{ ('<' * 1000000) | striptags }}",
    "endless recursion": "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
}


@pytest.mark.parametrize("kind", list(GREEDY))
def test_a_greedy_template_is_refused_within_seconds(kind: str) -> None:
    greedy = Contract.model_construct(**draft(GREEDY[kind] + PLAIN))
    renderer = Renderer(greedy, tokenizer("smollm"))
    started = time.process_time()
    with pytest.raises(TemplateRefusal):
        renderer.text(turns("Hi"))
    assert time.process_time() - started < 4
    renderer = Renderer(Contract.model_construct(**draft(PLAIN)), tokenizer("smollm"))
    assert renderer.text(turns("Hi")).startswith("<|im_start|>user\nHi<|im_end|>")


def test_a_template_that_is_greedy_for_some_words_only() -> None:
    """The limit is on every rendering, not on a trial beforehand."""
    template = "{% if messages[0].content == 'now' %}" + GREEDY["nested loops"] + "{% endif %}" + PLAIN
    renderer = Renderer(Contract.model_construct(**draft(template)), tokenizer("smollm"))
    assert "later" in renderer.text(turns("later"))
    with pytest.raises(TemplateRefusal, match=r"computes for more than .* s for one rendering"):
        renderer.text(turns("now"))


@pytest.mark.parametrize("source", ["{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "{% for %}", GREEDY["a power"]])
def test_no_contract_comes_from_a_template_that_cannot_be_compiled(source: str, tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text(source + PLAIN)
    with pytest.raises(UsageError, match=r"template|line"):
        make_contract(TemplateConfig(name="own", file=str(tmp_path / "own.jinja")), tokenizer("smollm"))
