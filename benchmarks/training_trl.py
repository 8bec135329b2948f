"""TRL's SFTTrainer on the same rows: packed, loss on the assistant's turns, no recomputation, fused AdamW."""

import argparse
import os
import time
from typing import Any

from training_rows import ALPHA, LEARNING_RATE, RANK, SYSTEM, TEMPLATE, shipped_rows


def train(arguments: argparse.Namespace) -> tuple[dict[str, int], float] | None:
    """(tokens, seconds) without the first step, in the first process; the adapter goes to `checkpoint`."""
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

    class Counting(SFTTrainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
            if stamps:
                counted["tokens"] += inputs["input_ids"].numel()
                counted["supervised"] += int((inputs["labels"] != -100).sum())
            return super().compute_loss(model, inputs, *rest, **more)

    class Stamps(TrainerCallback):  # type: ignore[misc]
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
    trainer.save_model(str(arguments.out / "checkpoint"))
    totals = trainer.accelerator.reduce(torch.tensor(list(counted.values())), "sum").tolist()
    if not trainer.is_world_process_zero():
        return None
    return dict(zip(counted, totals, strict=True)), stamps[-1] - stamps[0]
