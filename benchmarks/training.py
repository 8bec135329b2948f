"""Speed of training: beside TRL's SFTTrainer on the same rows, and against the machine's own matrix products.

    python benchmarks/training.py peer --model MODEL [--rows 400] [--rounds 3]
    python benchmarks/training.py growth --model MODEL
    python benchmarks/training.py padding
    python benchmarks/training.py harness --model MODEL
    python benchmarks/training.py trl --model MODEL

`peer`: both trainers, each in a process of its own. `growth`: this project's at several lengths and batches. `padding`:
the packing alone. `harness`, `trl`: one training, and its counts as JSON. MODEL is a pretrained model's folder. Tables
are Markdown. The peer needs `pip install trl`.
"""

import argparse
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import ROOT

DATA = ("finance", "general", "support")
TEMPLATE = ROOT / "harness" / "prompt" / "templates" / "chatml.jinja"
LEARNING_RATE, RANK, ALPHA = 2e-4, 16, 32
SYSTEM = (
    "You are the assistant of a retail bank and answer its customers in plain English. Give general information only. "
    "Never recommend a product, never promise a return. Close every answer about investing, borrowing, pensions or tax "
    "with the disclaimer of the compliance department. Send whoever is in danger to the emergency services first, and "
    "whoever complains to a colleague. Do not repeat account numbers."
)


def main() -> None:
    given = options()
    if given.what in ("harness", "trl") and given.out is None:
        with tempfile.TemporaryDirectory() as folder:
            given.out = Path(folder)
            WORK[given.what](given)
            print((given.out / "result.json").read_text())
    else:
        WORK[given.what](given)


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; exits with 2 where one is missing or unknown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=WORK)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--step-tokens", type=int, default=2048)
    parser.add_argument("--trl-lengths", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--trl-autocast", action="store_true")
    parser.add_argument("--processes", type=int, default=1, help="of the harness's training (launcher=accelerate)")
    parser.add_argument("--parts", type=int, default=0, help="train.parts_at_once of the harness; 0 is one per core")
    parser.add_argument("--rounds", type=int, default=1, help="repeat all trainers: the machine's speed varies")
    parser.add_argument("--trl-processes", type=int, nargs="+", default=[1], help="by accelerate launch; each is tried")
    parser.add_argument("--system", action="store_true", help="put a system message in front of every row")
    parser.add_argument("--out", type=Path, help="harness, trl: keep the adapter and result.json in this folder")
    given = parser.parse_args(arguments)
    if given.what != "padding" and given.model is None:
        parser.error(f"{given.what} needs --model FOLDER")
    return given


def peer(arguments: argparse.Namespace) -> None:
    """Both trainers one after the other, each in a process of its own, the matrix speed before and after."""
    speeds = _speeds(arguments.model)
    print("| trainer | tokens | supervised | tokens/s | supervised/s | harness is | final loss | matrix speed |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for _ in range(arguments.rounds):
        ours = _child(arguments, "harness", arguments.length)
        _show_peer(f"harness, {arguments.processes} process(es)", ours, ours, speeds, shared=arguments.system)
        for processes, length in itertools.product(arguments.trl_processes, arguments.trl_lengths):
            if arguments.step_tokens // length >= processes:
                run = _child(arguments, "trl", length, processes)
                _show_peer(
                    f"TRL, packed to {length}, {processes} process(es)", run, ours, speeds, shared=arguments.system
                )
    print("\nafterwards:")
    _speeds(arguments.model)


def _show_peer(
    name: str, run: dict[str, Any], ours: dict[str, Any], speeds: tuple[float, float], *, shared: bool
) -> None:
    """A line of the table; where rows share a prompt, tokens are not computed as often as they are counted."""
    print(
        f"| {name} | {run['tokens']} | {run['supervised']} | {run['tokens_per_s']:.0f} | {run['supervised_per_s']:.0f} "
        f"| {ours['tokens_per_s'] / run['tokens_per_s']:.2f} times | {run['final_loss']:.4f} "
        f"| {'' if shared else _shares(run, speeds)} |",
        flush=True,
    )


def _shares(run: dict[str, Any], speeds: tuple[float, float]) -> str:
    return " / ".join(f"{run['tokens_per_s'] * run['flop_per_token'] / speed:.0%}" for speed in speeds)


def growth(arguments: argparse.Namespace) -> None:
    """This project's trainer at several sequence lengths and sequences a step."""
    speeds = _speeds(arguments.model)
    print("| sequence length | sequences a step | tokens/s | of matrix speed (square / as in a layer) |")
    print("| --- | --- | --- | --- |")
    for length, per_step in ((256, 1), (256, 4), (512, 1), (1024, 1), (1024, 4), (2048, 1)):
        arguments.step_tokens = length * per_step
        run = _child(arguments, "harness", length)
        print(f"| {length} | {per_step} | {run['tokens_per_s']:.0f} | {_shares(run, speeds)} |", flush=True)


def padding(_: argparse.Namespace) -> None:
    """Padding after packing rows whose lengths are log-normal (median 150 tokens), and the time it takes."""
    from harness.train.packing import plan_sequences

    generator = random.Random(0)
    print("| lengths | rows | sequence length | sequences | padding | seconds |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, rows, length in (
        *(("log-normal", 1_000_000, length) for length in (512, 2048, 8192)),
        *(("log-normal", 1_000, length) for length in (512, 2048)),
    ):
        sizes = [min(length, max(8, int(generator.lognormvariate(5, 0.7)))) for _ in range(rows)]
        started = time.perf_counter()
        bins = plan_sequences(sizes, length, seed=0)
        seconds = time.perf_counter() - started
        share = 1 - sum(sizes) / (length * len(bins))
        print(f"| {name} | {rows:,} | {length} | {len(bins):,} | {share:.2%} | {seconds:.1f} |")


def matrix_speed(rows: int = 2048, inner: int = 2048, outer: int = 2048) -> float:
    """FLOP/s of the fastest of some bf16 products."""
    import torch

    left, right = torch.randn(rows, inner).bfloat16(), torch.randn(inner, outer).bfloat16()
    return 2 * rows * inner * outer / min(_seconds(lambda: left @ right) for _ in range(30))


def _speeds(model: Path) -> tuple[float, float]:
    """FLOP/s of the square product, and of one as in this model's layers; prints both."""
    config = json.loads((model / "config.json").read_text())
    hidden, outer = config["hidden_size"], config["intermediate_size"]
    square, layer = matrix_speed(), matrix_speed(1024, hidden, outer)
    print(
        f"bf16 products: 2048×2048×2048 {square / 1e9:.0f} GFLOP/s, 1024×{hidden}×{outer} {layer / 1e9:.0f} GFLOP/s\n"
    )
    return square, layer


def _seconds(work: Any) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _child(arguments: argparse.Namespace, what: str, length: int, trl_processes: int = 1) -> dict[str, Any]:
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_machines", "1", "--mixed_precision", "no"]
    launch += ["--num_processes", str(trl_processes), "--dynamo_backend", "no"]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        command = [sys.executable, *(launch if trl_processes > 1 else ()), __file__, what]
        command += ["--model", str(arguments.model), "--rows", str(arguments.rows)]
        command += ["--length", str(length), "--step-tokens", str(arguments.step_tokens), "--out", str(out)]
        command += ["--processes", str(arguments.processes), "--parts", str(arguments.parts)]
        command += ["--trl-autocast"] if arguments.trl_autocast else []
        command += ["--system"] if arguments.system else []
        subprocess.run(command, check=True, stdout=sys.stderr)
        result: dict[str, Any] = json.loads((out / "result.json").read_text())
    return result


def shipped_rows(count: int) -> list[dict[str, Any]]:
    """A seeded sample of the shipped data, in the audit's shape."""
    rows = [
        {"id": f"{name}-{number}", "source": name, "topic": "", **json.loads(line)}
        for name in DATA
        for number, line in enumerate((ROOT / "data" / f"{name}.jsonl").read_text().splitlines())
    ]
    return random.Random(0).sample(rows, count)


def template(arguments: argparse.Namespace) -> list[str]:
    """The settings of the prompt template."""
    fixed = ["template.system_policy=fixed", f"template.system='{SYSTEM}'"] if arguments.system else []
    return ["template=chatml", *fixed]


def run_harness(arguments: argparse.Namespace) -> None:
    """`finetune` as `harness train` calls it; tokens/s without the first step."""
    from harness.train.finetune import finetune
    from harness.workflows.compose import config_for

    settings = {
        "model": "pretrained",
        "model.path": arguments.model,
        "tracker": "none",
        "name": "speed",
        "train.sequence_length": arguments.length,
        "train.sequences_per_step": arguments.step_tokens // arguments.length,
        "train.learning_rate": LEARNING_RATE,
        "train.schedule": "constant",
        "train.warmup_ratio": 0.0,
        "train.epochs": 1,
        "train.parts_at_once": arguments.parts,
        "train.lora.r": RANK,
        "train.lora.alpha": ALPHA,
    }
    if arguments.processes > 1:
        settings |= {"launcher": "accelerate", "num_processes": arguments.processes}
    folder = arguments.out / "checkpoint"
    folder.mkdir(parents=True)
    config = config_for([*(f"{k}={v}" for k, v in settings.items()), *template(arguments)])
    finetune(config.training, arguments.model, shipped_rows(arguments.rows), folder)
    curve = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()][1:]
    seconds = sum(step["seconds"] for step in curve)
    counted = {
        "tokens": round(sum(step["tokens_per_s"] * step["seconds"] for step in curve)),
        "supervised": round(sum(step["supervised_tokens_per_s"] * step["seconds"] for step in curve)),
    }
    _write(arguments, folder, counted, seconds)


def run_trl(arguments: argparse.Namespace) -> None:
    """SFTTrainer: packed, loss on the assistant's turns, no recomputation, fused AdamW; counted as `run_harness` is."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from harness.prompt.messages import row_messages
    from harness.train.cpu.accelerate import keep_memory

    keep_memory()
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    tokenizer.chat_template = TEMPLATE.read_text()
    counted = {"tokens": 0, "supervised": 0}
    stamps: list[float] = []

    class Counting(SFTTrainer):
        def compute_loss(self, model: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
            if stamps:
                counted["tokens"] += inputs["input_ids"].numel()
                counted["supervised"] += int((inputs["labels"] != -100).sum())
            return super().compute_loss(model, inputs, *rest, **more)

    class Stamps(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            stamps.append(time.perf_counter())

    system = [{"role": "system", "content": SYSTEM}] if arguments.system else []
    conversations = [{"messages": [*system, *row_messages(row)]} for row in shipped_rows(arguments.rows)]
    trainer = Counting(
        model=AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.bfloat16, attn_implementation="sdpa"),
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(conversations),
        peft_config=LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[Stamps()],
        args=SFTConfig(
            output_dir=str(arguments.out / "trl"),
            packing=True,
            max_length=arguments.length,
            assistant_only_loss=True,
            per_device_train_batch_size=1,
            gradient_accumulation_steps=arguments.step_tokens // arguments.length // processes,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            num_train_epochs=1,
            bf16=arguments.trl_autocast,
            gradient_checkpointing=False,
            optim="adamw_torch_fused",
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            use_cpu=not torch.cuda.is_available(),
            dataloader_pin_memory=False,
        ),
    )
    trainer.train()
    adapter = arguments.out / "checkpoint"
    trainer.save_model(str(adapter))
    totals = trainer.accelerator.reduce(torch.tensor(list(counted.values())), "sum").tolist()
    if trainer.is_world_process_zero():
        _write(arguments, adapter, dict(zip(counted, totals, strict=True)), stamps[-1] - stamps[0])


def _write(arguments: argparse.Namespace, adapter: Path, counted: dict[str, int], seconds: float) -> None:
    supervised = counted["supervised"] / counted["tokens"]
    result = {
        **counted,
        "tokens_per_s": counted["tokens"] / seconds,
        "supervised_per_s": counted["supervised"] / seconds,
        "final_loss": final_loss(arguments, adapter),
        "flop_per_token": flop_per_token(arguments.model, supervised),
    }
    (arguments.out / "result.json").write_text(json.dumps(result))


def final_loss(arguments: argparse.Namespace, adapter: Path) -> float:
    """Mean loss of the adapter on the rows it was trained on, by transformers' own attention and peft's own layers."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from harness.prompt.make import make_contract
    from harness.prompt.messages import row_messages
    from harness.prompt.render import Renderer
    from harness.train.validation import eval_loss
    from harness.workflows.compose import config_for

    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    config = config_for(["model=pretrained", f"model.path={arguments.model}", *template(arguments)])
    contract = make_contract(config.template, tokenizer)
    renderer = Renderer(contract, tokenizer)
    rows = [renderer.training(row_messages(row)) for row in shipped_rows(arguments.rows)[:100]]
    base = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.bfloat16, attn_implementation="sdpa")
    return eval_loss(PeftModel.from_pretrained(base, adapter), rows, 256)


def flop_per_token(model: Path, supervised: float) -> float:
    """Matrix products of a token's forward and backward pass: no weight gradients but the adapter's (left out).

    Attention's own products are left out too. The head counts for supervised tokens alone.
    """
    config = json.loads((model / "config.json").read_text())
    hidden, width = config["hidden_size"], config["head_dim"]
    heads, key_heads = config["num_attention_heads"] * width, config["num_key_value_heads"] * width
    layer = hidden * (2 * heads + 2 * key_heads + 3 * config["intermediate_size"])
    head = hidden * config["vocab_size"]
    return float(4 * (config["num_hidden_layers"] * layer + supervised * head))


WORK = {"peer": peer, "growth": growth, "padding": padding, "harness": run_harness, "trl": run_trl}

if __name__ == "__main__":
    main()
