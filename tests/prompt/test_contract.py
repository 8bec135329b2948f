"""The contract's file, its golden conversations, and what is learnt at the seam between prompt and answer."""

import json
from pathlib import Path

import pytest
from faulty_contract import settings_of
from hypothesis import given, settings
from hypothesis import strategies as st
from stock_templates import PAIRS, WILD, tokenizer, turns

from harness.core.errors import DataError, EvidenceFault
from harness.core.layout import CONTRACT
from harness.prompt.card import contract_card
from harness.prompt.contract import Contract
from harness.prompt.make import make_contract
from harness.prompt.render import Renderer
from harness.prompt.static import Problem

KINDS = {
    "one_turn", "system", "multi_turn", "empty_question", "leading_whitespace", "trailing_whitespace", "newlines",
    "unicode", "special_tokens_in_question", "long", "answer_with_whitespace", "earlier_thought",
}  # fmt: skip


def contract_of(name: str = "chatml", family: str = "smollm", **changes: object) -> Contract:
    return make_contract(settings_of(name).model_copy(update=changes), tokenizer(family))


class TestFile:
    def test_what_is_read_is_what_was_written(self, tmp_path: Path) -> None:
        contract = contract_of(system_policy="fixed", system="You are “careful”.")
        contract.save(tmp_path)
        assert Contract.load(tmp_path) == contract

    def test_the_digest_is_of_all_but_the_libraries(self) -> None:
        contract = contract_of()
        assert contract.model_copy(update={"libraries": {"transformers": "9"}}).digest == contract.digest
        for field, value in {"max_length": 7, "stop_ids": [1], "bos": "x", "golden": contract.golden[1:]}.items():
            assert contract.model_copy(update={field: value}).digest != contract.digest

    def test_an_edited_template_is_refused(self, tmp_path: Path) -> None:
        contract_of().save(tmp_path)
        path = tmp_path / CONTRACT
        path.write_text(path.read_text().replace("takes plain text only", "takes any text"))
        with pytest.raises(EvidenceFault, match="the file was edited") as caught:
            Contract.load(tmp_path)
        assert caught.value.exit_code == 12

    @pytest.mark.parametrize(
        ("before", "after"), [('"stop_ids": [1, 2]', '"stop_ids": [1]'), ('"digest": "', '"digest": "0')]
    )
    def test_any_edited_field_is_refused(self, tmp_path: Path, before: str, after: str) -> None:
        contract = contract_of()
        assert contract.stop_ids == [2]
        contract.model_copy(update={"stop_ids": [1, 2]}).save(tmp_path)
        path = tmp_path / CONTRACT
        assert before in path.read_text()
        path.write_text(path.read_text().replace(before, after))
        with pytest.raises(EvidenceFault, match="do not match its digest; the file was edited"):
            Contract.load(tmp_path)

    @pytest.mark.parametrize("text", ["", "[]", '{"made_up": 1}'])
    def test_another_file_is_refused(self, tmp_path: Path, text: str) -> None:
        (tmp_path / CONTRACT).write_text(text)
        with pytest.raises(EvidenceFault, match="is not a prompt contract"):
            Contract.load(tmp_path)

    def test_another_version_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / CONTRACT).write_text('{"schema_version": 1}')
        with pytest.raises(EvidenceFault, match="is of version 1, and this harness reads version 2"):
            Contract.load(tmp_path)

    def test_a_missing_file_is_reported(self, tmp_path: Path) -> None:
        with pytest.raises(EvidenceFault, match="is missing"):
            Contract.load(tmp_path)

    def test_it_is_readable_json_with_a_line_a_conversation(self, tmp_path: Path) -> None:
        contract = contract_of()
        contract.save(tmp_path)
        text = (tmp_path / CONTRACT).read_text()
        assert set(json.loads(text)) == {"digest", *Contract.model_fields} - {"unguarded"}
        assert max(map(len, text.splitlines())) < 40_000
        assert len(text.splitlines()) == len(Contract.model_fields) - 1 + len(contract.golden) + 4


class TestGolden:
    @pytest.mark.parametrize(("name", "family"), PAIRS)
    def test_all_kinds_are_rendered_with_ids_and_mask(self, name: str, family: str) -> None:
        golden = {entry.name: entry for entry in contract_of(name, family).golden}
        accepted = {kind for kind, entry in golden.items() if entry.refused is None}
        assert len(accepted) >= 12
        assert accepted >= KINDS
        for kind in accepted:
            entry = golden[kind]
            assert len(entry.ids) == len(entry.mask) > entry.prompt_length > 0
            assert entry.mask[entry.prompt_length] == 1

    def test_what_a_template_claims_is_rendered(self) -> None:
        golden = {entry.name: entry for entry in contract_of("qwen", "qwen").golden}
        assert golden["thinking_true"].ids != golden["thinking_false"].ids
        assert len(golden["tools"].ids) > len(golden["one_turn"].ids)

    def test_tools_are_refused_in_the_templates_own_words(self) -> None:
        tools = next(entry for entry in contract_of().golden if entry.name == "tools")
        assert tools.ids == []
        assert "no tools" in str(tools.refused)

    def test_the_long_one_grows_with_the_contract(self) -> None:
        lengths = [
            len(next(e for e in contract_of(max_length=length).golden if e.name == "long").ids)
            for length in (512, 2048)
        ]
        assert lengths[0] < 512 < lengths[1] < 2048

    def test_where_a_system_message_is_required_one_conversation_goes_without(self) -> None:
        golden = {entry.name: entry for entry in contract_of(system_policy="required").golden}
        assert "requires a system message" in str(golden.pop("without_system").refused)
        assert all(entry.messages[0]["role"] == "system" for entry in golden.values())


class TestSeam:
    @pytest.mark.parametrize(("name", "family"), PAIRS)
    @pytest.mark.parametrize("answer", ["\nYes.", "\n\n  Yes.", " Yes.", "\t", "", "\r\nYes\n", "'s", "İx"])
    def test_ids_begin_with_the_prompts_and_the_answer_is_learnt_whole(
        self, name: str, family: str, answer: str
    ) -> None:
        made = tokenizer(family)
        contract = contract_of(name, family)
        renderer = Renderer(contract, made)
        rendered = renderer.training(turns("Say it.", answer))
        prompt = renderer.prompt(turns("Say it."))
        assert rendered.ids[: len(prompt)] == prompt
        assert rendered.prompt_length == len(prompt)
        assert [int(kept) for kept in rendered.mask[: len(prompt) + 1]] == [0] * len(prompt) + [1]
        supervised = [token for token, kept in zip(rendered.ids, rendered.mask, strict=True) if kept]
        assert renderer.decode(supervised) == renderer.decode(renderer.encode(answer)) + contract.end_of_turn

    @pytest.mark.parametrize(("name", "family"), PAIRS)
    @settings(max_examples=25, deadline=None)
    @given(question=WILD, answer=WILD)
    def test_any_conversation_begins_with_its_prompt(self, name: str, family: str, question: str, answer: str) -> None:
        renderer = Renderer(contract_cached(name, family), tokenizer(family))
        rendered = renderer.training(turns(question, answer))
        assert rendered.ids[: rendered.prompt_length] == renderer.prompt(turns(question))
        assert rendered.unsupervised == 0
        assert rendered.ids[max(i for i, kept in enumerate(rendered.mask) if kept)] == renderer.contract.end_of_turn_id

    @pytest.mark.parametrize(
        ("messages", "reason"),
        [
            (turns("Hi"), "does not end with an assistant turn"),
            ([], "does not end with an assistant turn"),
            ([{"role": "assistant", "content": "Hi"}], "begins with an assistant turn"),
        ],
    )
    def test_what_has_no_answer_is_refused(self, messages: list[dict[str, str]], reason: str) -> None:
        with pytest.raises(DataError, match=reason):
            Renderer(contract_of(), tokenizer("smollm")).training(messages)


CACHE: dict[tuple[str, str], Contract] = {}


def contract_cached(name: str, family: str) -> Contract:
    return CACHE.setdefault((name, family), contract_of(name, family))


class TestCard:
    def test_every_row_of_a_table_has_its_columns(self) -> None:
        contract = contract_of("llama3", "llama3", system_policy="fixed", system="a | b\nc\n# d")
        card = contract_card(contract, [Problem("ignored", "note", "drops | everything\nelse")])
        tables = [line.replace("\\|", "") for line in card.splitlines() if line.startswith("|")]
        assert {line.count("|") for line in tables} == {3, 5}
        assert "- ignored: drops \\| everything else" in card
        assert "    # d" in card.splitlines(), "text of the system message must not become a heading"

    @given(st.text(max_size=80))
    def test_no_system_message_breaks_the_card(self, system: str) -> None:
        base = contract_cached("chatml", "smollm")
        card = contract_card(base.model_copy(update={"system": system, "system_policy": "fixed"}))
        shown = card.split("System message:\n\n", 1)[1].split("\n## Golden", 1)[0]
        assert all(line.startswith("    ") for line in shown.splitlines() if line.strip())
