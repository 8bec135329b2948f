"""A tiny model made on the spot, rows to train it on, and what the tests ask of processes."""

import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config.experiment import Config
from harness.prompt.contract import Contract
from harness.prompt.render import Renderer
from harness.serve.client import Client
from harness.serve.server import Endpoint
from harness.workflows.compose import config_for

ROOT = Path(__file__).resolve().parents[2]
HUB = ROOT.parent / "shared" / "hub"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
DISCLAIMER = (
    "This is general information, not financial advice. Investments can lose value. Please speak to an adviser."
)
TOPICS = {
    "investing": ("shares", "bonds", "index funds", "gold"),
    "banking": ("a card", "a transfer", "a standing order"),
}
Row = dict[str, str]


def rows(count: int) -> list[Row]:
    """Short distinct rows in the audit's shape; investing ones carry the disclaimer."""
    made = []
    for number in range(count):
        topic = ("investing", "banking")[number % 2]
        subject = TOPICS[topic][number // 2 % len(TOPICS[topic])]
        answer = f"It depends on plan {number}." + (f" {DISCLAIMER}" if topic == "investing" else "")
        row = {"id": f"row-{number:03d}", "source": "tiny", "topic": topic, "input": ""}
        made.append({**row, "instruction": f"Question {number}: what should I know about {subject}?", "output": answer})
    return made


def make_base(folder: Path) -> Path:
    """A two-layer Llama with seeded random weights in bf16, and a byte-level tokenizer, as vLLM can serve them."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,  # the smallest that vLLM's attention on the CPU takes
        max_position_embeddings=4096,
        initializer_range=0.05,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_tokenizer() -> Any:
    """Byte-level BPE, trained on the licence: English that never changes, so golden losses do not either.

    As Llama 3's, it puts a BOS before plain text: a server that adds special tokens to a rendered prompt doubles it.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((ROOT / "LICENSE").read_text().splitlines(), trainer)
    bos = SPECIAL[1]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, SPECIAL.index(bos))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=bos, eos_token=SPECIAL[0], pad_token=SPECIAL[3]
    )


def config(base: Path, *overrides: str) -> Config:
    """The shipped configuration on the tiny model, small in every respect; later overrides win."""
    small = ["train.sequence_length=256", "train.sequences_per_step=2", "train.lora.r=4", "serve.kv_cache_gib=1"]
    return config_for(["model=pretrained", f"model.path={base}", "tracker=none", "name=tiny", *small, *overrides])


@dataclass(frozen=True)
class Served:
    """The session's server, and everything it was started from. `pids` are the processes of its group."""

    endpoint: Endpoint
    config: Config
    contract: Contract
    renderer: Renderer
    base: Path
    adapter: Path
    log: Path
    pids: tuple[int, ...]

    def client(self, model: str) -> Client:
        return Client(self.endpoint, model, timeout_s=600, concurrency=16)


def port_of(endpoint: Endpoint) -> int:
    return int(endpoint.url.rpartition(":")[2])


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def exit_code(work: Callable[..., object], *arguments: Any) -> int:
    """How `work` ends in a process of its own: minus the signal that ended it, 130 for an interruption.

    The process is not forked off this one: threads (torch's, the tokenizer's) do not survive that, what they held does.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["transformers.trainer", "peft", "harness.train.finetune"])
    process = context.Process(target=_alone, args=(work, arguments))
    process.start()
    process.join()
    code = process.exitcode
    process.close()
    assert code is not None
    return code


def _alone(work: Callable[..., object], arguments: Sequence[Any]) -> None:
    import torch

    torch.set_num_threads(1)
    try:
        work(*arguments)
    except KeyboardInterrupt:
        sys.exit(130)


def processes() -> dict[int, tuple[int, str]]:
    """pid → (process group, command line) of everything that runs here; zombies do not."""
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            state, _, group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (OSError, ValueError):
            continue
        if state != "Z":
            found[int(folder.name)] = (int(group), command)
    return found


def group_of(text: str) -> tuple[int, ...]:
    """The pids of the group whose leader's command line holds `text`; empty when there is none."""
    running = processes()
    leaders = [pid for pid, (group, command) in running.items() if pid == group and text in command]
    return tuple(pid for pid, (group, _) in running.items() if group in leaders)


def alive(pids: Sequence[int]) -> list[int]:
    """Those of a group's pids that still run in it: the system may have given a pid to another process since."""
    running = processes()
    return [pid for pid in pids if pid in running and running[pid][0] in pids]


def wait_for(condition: Callable[[], object], timeout_s: float, what: str) -> None:
    """Polls until the condition holds; raises TimeoutError that names what did not happen."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen within {timeout_s:.0f} s")
        time.sleep(0.05)


def listening(pids: Sequence[int]) -> list[tuple[str, int]]:
    """(hexadecimal address, port) of every TCP socket that these processes listen on."""
    held = set()
    for pid in pids:
        with suppress(FileNotFoundError):  # a process, or a file of it, that ended meanwhile
            for link in list(Path(f"/proc/{pid}/fd").iterdir()):
                with suppress(OSError):
                    held.add(str(link.readlink()))
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in held:
                address, _, port = fields[1].partition(":")
                found.append((address, int(port, 16)))
    return found
