"""What is computed in fewer passes is what transformers, peft and PyTorch compute: values and gradients."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny

from harness.config.train import TrainConfig
from harness.prompt.render import Rendered
from harness.train.compute import Compute
from harness.train.packing import TrainingBatches, collate, join

pytestmark = pytest.mark.integration


def adapted(base: Path, dtype: str = "float32", *, plain: bool = False, **settings: Any) -> Any:
    """The tiny model in training mode, its adapter far from zero; `plain` is transformers' and peft's own."""
    import torch

    from harness.train.device import compute_for
    from harness.train.model import load_for_training

    config = tiny.config(base)
    train = TrainConfig(device="cpu", lora={"r": 4, **settings})
    model = load_for_training(base, train, dtype).train()
    generator = torch.Generator().manual_seed(1)
    for name, weights in model.named_parameters():
        if "lora_B" in name:
            weights.data.normal_(0, 0.2, generator=generator)
    if not plain:
        compute_for(model, config.model_copy(update={"train": train}).training, "cpu")
    return model


def rows(*sizes: int, shared: int = 0) -> list[Rendered]:
    """Rows of random ids, the first `shared` of them equal; the loss is on the second half of the others."""
    import torch

    generator = torch.Generator().manual_seed(2)
    prompt = list(range(10, 10 + shared))
    return [
        Rendered(
            [*prompt, *torch.randint(10, 500, (size,), generator=generator).tolist()],
            [t >= shared + size // 2 for t in range(shared + size)],
        )
        for size in sizes
    ]


def compute_of(model: Any) -> Compute:
    """How the trainer computes a step of what `adapted` returns."""
    from harness.train.cpu.accelerate import CpuCompute
    from harness.train.cpu.attention import attends_by_rows

    return CpuCompute(model, 1) if attends_by_rows(model) else Compute()


def summed_loss(model: Any, together: Sequence[Rendered]) -> Any:
    """The trainer's own loss of one packed sequence, summed over its tokens."""
    from harness.train.trainer import PackedTrainer, training_arguments

    names = [str(number) for number in range(len(together))]
    batches = TrainingBatches([join(together, range(len(together)))], [0], names, ["tiny"] * len(names), 1)
    config = tiny.config(Path("unused"))
    with tempfile.TemporaryDirectory() as folder:
        arguments = training_arguments(config.train, 1, Path(folder), use_cpu=True)
        trainer = PackedTrainer(batches, config.training, compute_of(model), model=model, args=arguments)
        return trainer.compute_loss(model, collate(batches.examples(1)), num_items_in_batch=1)


def reference(model: Any, row: Rendered) -> Any:
    """Summed cross-entropy of one row alone, by its definition."""
    import torch

    logprobs = torch.log_softmax(model(input_ids=torch.tensor([row.ids])).logits[0].float(), -1)
    supervised = [t for t, on in enumerate(row.mask) if on and t]
    return -torch.stack([logprobs[t - 1, row.ids[t]] for t in supervised]).sum()


def gradients(model: Any) -> Any:
    import torch

    found = torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])
    model.zero_grad()
    return found


def relative(found: Any, wanted: Any) -> float:
    return float((found - wanted).norm() / wanted.norm())


class TestPackedLoss:
    @pytest.mark.parametrize("sizes", [(40, 3, 25), (127, 128, 129), (300, 2, 260)], ids=str)
    def test_is_the_sum_over_the_rows_alone_and_so_are_its_gradients(
        self, tiny_base: Path, sizes: tuple[int, ...]
    ) -> None:
        packed, separate = adapted(tiny_base), adapted(tiny_base, plain=True)
        loss = summed_loss(packed, rows(*sizes))
        loss.backward()
        wanted = sum(reference(separate, row) for row in rows(*sizes))
        wanted.backward()
        assert loss.item() == pytest.approx(wanted.item(), rel=1e-6)
        assert relative(gradients(packed), gradients(separate)) < 5e-5

    @pytest.mark.parametrize("longest", [1024, 60], ids=["own", "pytorch"])
    @pytest.mark.parametrize(("sizes", "shared"), [((40, 4, 25), 8), ((30, 150, 31), 100), ((2, 300, 2), 140)], ids=str)
    def test_what_all_rows_begin_with_is_computed_once_and_changes_nothing(
        self, tiny_base: Path, monkeypatch: pytest.MonkeyPatch, longest: int, sizes: tuple[int, ...], shared: int
    ) -> None:
        from harness.train.cpu import attention

        monkeypatch.setattr(attention, "_LONGEST", longest)
        packed, separate = adapted(tiny_base), adapted(tiny_base, plain=True)
        computed: list[int] = []
        packed.get_input_embeddings().register_forward_hook(lambda _, ids, out: computed.append(out.shape[1]))
        loss = summed_loss(packed, rows(*sizes, shared=shared))
        loss.backward()
        wanted = sum(reference(separate, row) for row in rows(*sizes, shared=shared))
        wanted.backward()
        assert computed[-1:] == [sum(sizes) + shared - len(sizes)]  # a row's last token predicts nothing
        assert loss.item() == pytest.approx(wanted.item(), rel=1e-6)
        assert relative(gradients(packed), gradients(separate)) < 5e-5

    def test_a_row_longer_than_is_kept_in_memory_is_computed_by_pytorch(
        self, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from harness.train.cpu import attention

        monkeypatch.setattr(attention, "_LONGEST", 30)
        separate = adapted(tiny_base, plain=True)
        wanted = sum(reference(separate, row) for row in rows(40, 20)).item()
        assert summed_loss(adapted(tiny_base), rows(40, 20)).item() == pytest.approx(wanted, rel=1e-6)

    def test_recomputed_activations_change_nothing(self, tiny_base: Path) -> None:
        kept, recomputed = adapted(tiny_base), adapted(tiny_base)
        recomputed.enable_input_require_grads()
        recomputed.gradient_checkpointing_enable({"use_reentrant": False})
        for model in (kept, recomputed):
            summed_loss(model, rows(40, 20, shared=30)).backward()
        assert relative(gradients(recomputed), gradients(kept)) < 1e-6

    @pytest.mark.parametrize("shared", [0, 100])
    def test_bfloat16_is_as_near_to_float32_as_the_plain_path(self, tiny_base: Path, shared: int) -> None:
        sizes = (150, 30, 80)
        exact = adapted(tiny_base, plain=True)
        found = []
        for model in (exact, adapted(tiny_base, "bfloat16"), adapted(tiny_base, "bfloat16", plain=True)):
            loss = summed_loss(model, rows(*sizes, shared=shared))
            loss.backward()
            found.append((loss.item(), gradients(model)))
        (wanted, slope), (fast, fast_slope), (plain, plain_slope) = found
        assert fast == pytest.approx(wanted, rel=0.01)
        assert plain == pytest.approx(wanted, rel=0.01)
        assert relative(fast_slope, slope) < 2.5 * relative(plain_slope, slope)

    def test_a_row_cannot_share_more_than_there_is(self) -> None:
        import torch

        from harness.train.cpu.attention import row_bounds

        assert row_bounds(torch.tensor([0, 1, 2, 3, 2, 3, 0, 0, 1])) == [
            (0, 4, 0, 0),
            (4, 6, 0, 2),
            (6, 7, 6, 0),
            (7, 9, 7, 0),
        ]
        with pytest.raises(ValueError, match="from 2 to 5, but the row before has 3 tokens"):
            row_bounds(torch.tensor([0, 1, 2, 5, 6]))


class TestAdapter:
    @pytest.mark.parametrize("settings", [{"rslora": True}, {"dora": True}, {"target_modules": ["q_proj"]}], ids=str)
    def test_every_kind_gives_what_peft_gives(self, tiny_base: Path, settings: dict[str, Any]) -> None:
        losses = [summed_loss(adapted(tiny_base, plain=plain, **settings), rows(40, 20)) for plain in (False, True)]
        assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-6)

    def test_dropout_is_not_lost(self, tiny_base: Path) -> None:
        import torch

        losses = []
        for plain in (False, True):
            model = adapted(tiny_base, plain=plain, dropout=0.5)
            torch.manual_seed(3)
            losses.append(summed_loss(model, rows(40, 20)).item())
        assert losses[0] == pytest.approx(losses[1], rel=1e-6)
        assert losses[0] != pytest.approx(summed_loss(adapted(tiny_base), rows(40, 20)).item(), rel=1e-5)

    def test_switched_off_it_leaves_the_base_model(self, tiny_base: Path) -> None:
        from harness.train.device import compute_for
        from harness.train.model import load_for_training

        untouched = load_for_training(tiny_base, TrainConfig(device="cpu"), "float32")
        compute_for(untouched, tiny.config(tiny_base).training, "cpu")
        model = adapted(tiny_base)
        with model.disable_adapter():
            assert summed_loss(model, rows(40)).item() == summed_loss(untouched, rows(40)).item()

    def test_no_weight_of_the_base_model_gets_a_gradient(self, tiny_base: Path) -> None:
        model = adapted(tiny_base)
        summed_loss(model, rows(40)).backward()
        assert [name for name, p in model.named_parameters() if p.grad is not None and "lora_" not in name] == []


class TestAttention:
    def test_a_model_with_a_window_keeps_its_own(self, tiny_base: Path) -> None:
        from transformers import MistralConfig, MistralForCausalLM

        from harness.train.cpu.attention import use_packed_attention

        small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "vocab_size": 64}
        assert not use_packed_attention(MistralForCausalLM(MistralConfig(**small, sliding_window=8)))
        assert use_packed_attention(MistralForCausalLM(MistralConfig(**small, sliding_window=None)))

    def test_a_padded_batch_is_masked(self, tiny_base: Path) -> None:
        import torch

        short, long = (torch.tensor([row.ids]) for row in rows(12, 20))
        batch = torch.cat([torch.cat([torch.zeros_like(short[:, :8]), short], 1), long])
        mask = torch.ones_like(batch)
        mask[0, :8] = 0
        model = adapted(tiny_base).eval()
        with torch.no_grad():
            alone = model(input_ids=short).logits[0, -1]
            padded = model(input_ids=batch, attention_mask=mask, position_ids=mask.cumsum(1) - 1).logits[0, -1]
        assert padded.tolist() == pytest.approx(alone.tolist(), abs=1e-4)

    def test_a_batch_without_padding_and_a_cached_prompt_are_computed_as_ever(self, tiny_base: Path) -> None:
        import torch

        first, second = (torch.tensor([row.ids]) for row in rows(12, 12))
        model, plain = adapted(tiny_base).eval(), adapted(tiny_base, plain=True).eval()
        with torch.no_grad():
            wanted = plain(input_ids=torch.cat([first, second])).logits
            found = model(input_ids=torch.cat([first, second])).logits
            prompt = model(input_ids=second[:, :8], use_cache=True)
            rest = model(input_ids=second[:, 8:], past_key_values=prompt.past_key_values).logits
        assert relative(found, wanted) < 1e-5
        assert relative(rest[0], wanted[1, 8:]) < 1e-5


class TestTokenLosses:
    def test_values_and_gradients_are_those_of_cross_entropy(self) -> None:
        import torch
        from torch.nn.functional import cross_entropy

        from harness.train.cpu.layers import token_losses

        torch.manual_seed(0)
        logits = (5 * torch.randn(150, 97)).requires_grad_()
        labels, weights = torch.randint(0, 97, (150,)), torch.rand(150)
        wanted = cross_entropy(logits, labels, reduction="none")
        (slope,) = torch.autograd.grad((wanted * weights).sum(), logits)
        found = token_losses(logits, labels)
        (found_slope,) = torch.autograd.grad((found * weights).sum(), logits)
        assert found.tolist() == pytest.approx(wanted.tolist(), rel=1e-5)
        assert relative(found_slope, slope) < 1e-6


class TestValidation:
    def test_each_row_has_its_own_loss_in_the_order_given(self, tiny_base: Path) -> None:
        from harness.train.validation import eval_loss, row_losses

        model, alone = adapted(tiny_base), adapted(tiny_base, plain=True)
        some = rows(40, 7, 33, 90, 2)
        wanted = [reference(alone, row).item() for row in some]
        assert row_losses(model, some, 64) == pytest.approx(wanted, rel=1e-5)
        assert row_losses(model, some, 64, compute_of(model)) == pytest.approx(wanted, rel=1e-5)
        assert eval_loss(model, some, 64, compute_of(model)) == pytest.approx(
            sum(wanted) / (20 + 4 + 17 + 45 + 1), rel=1e-5
        )
        assert model.training

    @pytest.mark.parametrize("method", ["lora", "full"])
    def test_rows_set_aside_are_measured_before_and_after_training(
        self, tiny_base: Path, tmp_path: Path, method: str
    ) -> None:
        from harness.train.finetune import finetune

        config = tiny.config(tiny_base, "train.learning_rate=1e-2", "train.epochs=2", f"train.method={method}")
        some = tiny.rows(20)
        long = {**some[0], "id": "long", "output": "word " * 300}
        summary = finetune(config.training, tiny_base, some[:12], tmp_path, validation=[*some[12:], long])
        assert summary.validation_rows == 8
        assert summary.base_validation_loss == pytest.approx(summary.first_loss, rel=0.1)
        assert summary.validation_loss is not None
        assert summary.validation_loss < 0.95 * summary.first_loss

    def test_rows_of_like_length_are_run_together_longest_first(self) -> None:
        from harness.train.validation import by_length

        assert by_length([5, 90, 30, 31, 6, 200], 64) == [[5], [1], [3, 2], [4, 0]]
