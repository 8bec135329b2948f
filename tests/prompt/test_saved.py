"""What a checkpoint folder says about its prompt, in every place; merged adapters keep their numbers."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faulty_checkpoint
import pytest
import tiny
from faults import CHECKPOINT, Fault
from faulty_checkpoint import STOCK, edited
from faulty_contract import Bench, settings_of

from harness.checkpoint.merge import merged, reasons_to_merge
from harness.checkpoint.origin import origin_of
from harness.core.errors import DataError, EvidenceFault
from harness.core.layout import CONTRACT
from harness.model.load import load_tokenizer
from harness.prompt import card
from harness.prompt.contract import Contract
from harness.prompt.make import make_contract
from harness.prompt.numerics import compute, references
from harness.prompt.render import Renderer
from harness.prompt.saved import check_saved, templates_in, write_prompt_side
from harness.prompt.static import Problem

SAVED = [fault for fault in CHECKPOINT if fault.caught_by == "checkpoint"]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """The prompt side of a base model and of an adapter, without weights."""
    tokenizer = tiny.make_tokenizer()
    contract = make_contract(settings_of("chatml"), tokenizer)
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    tokenizer.save_pretrained(base)
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"r": 4}))
    write_prompt_side(contract, tokenizer, adapter)
    served = SimpleNamespace(contract=contract, renderer=Renderer(contract, tokenizer), base=base, adapter=adapter)
    return Bench(served, tmp_path)


def problems(bench: Bench, folder: Path | None = None) -> list[Problem]:
    return check_saved(folder or bench.served.adapter, bench.served.base, bench.contract)


class TestWritten:
    def test_every_reader_finds_the_contracts_template(self, bench: Bench) -> None:
        folder = bench.served.adapter
        assert templates_in(folder) == dict.fromkeys(
            ("chat_template.jinja", "tokenizer_config.json"), bench.contract.template
        )
        assert load_tokenizer(folder).chat_template == bench.contract.template
        assert Contract.load(folder) == bench.contract
        assert bench.contract.digest in (folder / card.CARD_FILE).read_text()

    def test_readers_find_the_stop_ids_and_no_sampling(self, bench: Bench) -> None:
        from transformers import GenerationConfig

        found = GenerationConfig.from_pretrained(bench.served.adapter)
        assert found.eos_token_id == bench.contract.stop_ids
        assert not found.do_sample
        assert found.repetition_penalty in (None, 1.0)

    def test_nothing_is_wrong_with_it(self, bench: Bench) -> None:
        assert problems(bench) == []


class TestFaults:
    @pytest.mark.parametrize("fault", SAVED, ids=lambda fault: fault.name)
    def test_each_place_is_looked_at(self, fault: Fault, bench: Bench) -> None:
        with pytest.raises(EvidenceFault, match=fault.says):
            getattr(faulty_checkpoint, fault.name)(bench)()

    def test_an_adapter_without_a_tokenizer_is_judged_by_its_bases(self, bench: Bench) -> None:
        for file in ("tokenizer.json", "tokenizer_config.json"):
            (bench.served.adapter / file).unlink()
        assert problems(bench) == []
        tokenizer = tiny.make_tokenizer()
        tokenizer.add_tokens(["disclaimer"])
        tokenizer.save_pretrained(bench.served.base)
        assert ["is not the one the contract was made with" in p.message for p in problems(bench)] == [True]

    def test_a_base_with_another_tokenizer_is_noted_beside_the_adapters_own(self, bench: Bench) -> None:
        tokenizer = tiny.make_tokenizer()
        tokenizer.add_tokens(["disclaimer"])
        tokenizer.save_pretrained(bench.served.base)
        (found,) = problems(bench)
        assert found.severity == "note"
        assert "the base model's tokenizer" in found.message

    def test_a_file_that_is_not_json(self, bench: Bench) -> None:
        (bench.served.adapter / "tokenizer_config.json").write_text("{")
        with pytest.raises(DataError, match=r"tokenizer_config\.json is damaged"):
            problems(bench)


class TestMadeElsewhere:
    """A folder without a contract only has to agree with itself."""

    @pytest.fixture
    def folder(self, bench: Bench) -> Path:
        """A full model's folder, under its own template."""
        folder = bench.served.base
        (folder / "chat_template.jinja").write_text(bench.contract.template)
        edited(folder / "generation_config.json", {"eos_token_id": bench.contract.stop_ids})
        return Path(folder)

    def test_one_template_is_enough(self, bench: Bench, folder: Path) -> None:
        assert problems(bench, folder) == []

    def test_two_that_disagree_are_a_fault(self, bench: Bench, folder: Path) -> None:
        edited(folder / "tokenizer_config.json", {"chat_template": STOCK})
        assert [(p.severity, "the one read first" in p.message) for p in problems(bench, folder)] == [("error", True)]

    def test_none_at_all_is_a_fault(self, bench: Bench, folder: Path) -> None:
        (folder / "chat_template.jinja").unlink()
        assert ["no chat template" in p.message for p in problems(bench, folder)] == [True]

    def test_its_sampling_is_noted(self, bench: Bench, folder: Path) -> None:
        edited(folder / "generation_config.json", {"repetition_penalty": 1.1, "top_k": 50})
        (found,) = problems(bench, folder)
        assert found.severity == "note"
        assert found.message.endswith("answers with repetition_penalty=1.1 unless told otherwise")

    @pytest.mark.parametrize("stops", [0, [0], None])
    def test_answers_that_nothing_would_end_are_a_fault(self, bench: Bench, folder: Path, stops: object) -> None:
        (folder / "generation_config.json").unlink()
        if stops is not None:
            edited(folder / "generation_config.json", {"eos_token_id": stops})
        (found,) = problems(bench, folder)
        assert found.severity == "error"
        assert "'<|im_end|>'" in found.message

    def test_further_templates_are_noted(self, bench: Bench, folder: Path) -> None:
        (folder / "additional_chat_templates").mkdir()
        (folder / "additional_chat_templates" / "rag.jinja").write_text(STOCK)
        named = [
            {"name": "default", "template": bench.contract.template},
            {"name": "tool_use", "template": STOCK},
        ]
        edited(folder / "tokenizer_config.json", {"chat_template": named})
        assert [p.severity for p in problems(bench, folder)] == ["note", "note"]


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dora": {"use_dora": True},
    "module": {"modules_to_save": ["embed_tokens"]},
    "head": {"modules_to_save": ["lm_head"]},
    "bias": {"bias": "lora_only", "lora_bias": False},
    "token": {"trainable_token_indices": [5, 6]},
}
REASONS = {
    "plain": [],
    "dora": ["DoRA"],
    "module": ["fully trained modules: embed_tokens"],
    "head": ["fully trained modules: lm_head"],
    "bias": ["trained biases"],
    "token": ["trained embeddings of single tokens"],
    "added tokens": ["its own tokenizer (added tokens?); a server would use the base model's"],
}


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::UserWarning:peft")  # of tied embeddings, and that they are saved
class TestMerged:
    @pytest.mark.parametrize("kind", list(REASONS))
    def test_the_merged_model_has_the_adapters_numbers(
        self, kind: str, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
        adapter = tmp_path / "adapter"
        model, contract = trained(kind, tiny_base, adapter)
        reasons = reasons_to_merge(adapter, tiny_base)
        assert reasons == REASONS[kind]
        whole = merged(adapter, tiny_base, "float32", reasons)
        expected = references(model, contract)
        found = compute(whole, whole, contract, "float32").candidate
        assert [reference.ids for reference in found] == [reference.ids for reference in expected]
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.logprobs == pytest.approx(theirs.logprobs, abs=2e-3)

    def test_a_merged_model_serves_the_adapters_prompt(
        self, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
        _, contract = trained("added tokens", tiny_base, tmp_path / "adapter")
        whole = merged(tmp_path / "adapter", tiny_base, "float32", ["added tokens"])
        assert Contract.load(whole) == contract
        assert origin_of(whole) == tmp_path / "adapter"
        assert load_tokenizer(whole).encode("<|disclaimer|>", add_special_tokens=False) == [1024]
        assert (whole / CONTRACT).is_file()

    def test_nothing_is_wrong_with_a_merged_folder(
        self, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
        _, contract = trained("dora", tiny_base, tmp_path / "adapter")
        whole = merged(tmp_path / "adapter", tiny_base, "float32", ["DoRA"])
        assert check_saved(whole, whole, contract) == []


def trained(kind: str, base: Path, folder: Path) -> tuple[Any, Contract]:
    """An adapter of this kind with seeded random weights, as its trainer leaves it in memory and in `folder`."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(base)
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if kind == "added tokens":
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|disclaimer|>"]})
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    settings = SETTINGS.get(kind, {})
    config = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM", **settings)
    model = get_peft_model(model, config).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in (weight for weight in model.parameters() if weight.requires_grad):
            weight.add_(0.1 * torch.randn_like(weight))
    model.save_pretrained(folder)
    contract = make_contract(settings_of("chatml"), tokenizer)
    write_prompt_side(contract, tokenizer, folder)
    return model, contract
