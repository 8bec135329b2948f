"""What the stock models of each family have: special tokens and a way to split text. Made on the spot."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

LICENSE = Path(__file__).resolve().parents[2] / "LICENSE"
TIKTOKEN = (  # how Llama 3 and, but for digits, Qwen and Tekken split text
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Family:
    """`split`: GPT-2's rule, Llama 3's (tiktoken), or SentencePiece with byte fallback. No BOS where it is None."""

    split: str
    special: tuple[str, ...]
    bos: str | None
    eos: str
    nfc: bool = False


FAMILIES = {
    "smollm": Family("gpt2", ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), "<|im_start|>", "<|im_end|>"),
    "gpt2": Family("gpt2", ("<|endoftext|>",), "<|endoftext|>", "<|endoftext|>"),
    "llama3": Family(
        "tiktoken",
        ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|begin_of_text|>",
        "<|end_of_text|>",
    ),
    "qwen": Family(
        "tiktoken",
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tool_call>", "</tool_call>"),
        None,
        "<|im_end|>",
        nfc=True,
    ),
    "tekken": Family("tiktoken", ("<s>", "</s>", "[INST]", "[/INST]"), "<s>", "</s>"),
    "mistral": Family("sentencepiece", ("<s>", "</s>", "[INST]", "[/INST]"), "<s>", "</s>"),
    "gemma": Family("sentencepiece", ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"), "<bos>", "<eos>"),
}


@cache
def tokenizer(name: str) -> Any:
    """The family's tokenizer, trained on the licence (a transformers fast tokenizer)."""
    from transformers import PreTrainedTokenizerFast

    family = FAMILIES[name]
    made = _sentencepiece(family) if family.split == "sentencepiece" else _byte_level(family)
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token=family.bos, eos_token=family.eos)


def _byte_level(family: Family) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    if family.nfc:
        made.normalizer = normalizers.NFC()
    if family.split == "gpt2":
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        split = pre_tokenizers.Split(Regex(TIKTOKEN), "isolated")
        made.pre_tokenizer = pre_tokenizers.Sequence(
            [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=list(family.special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # The whole text, not line by line: merges of newlines and indentation are what a seam breaks on.
    made.train_from_iterator([LICENSE.read_text()], trainer)
    return made


def _sentencepiece(family: Family) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    metaspace = pre_tokenizers.Metaspace(prepend_scheme="never")
    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = metaspace
    trainer = trainers.UnigramTrainer(vocab_size=800, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False)
    trained.train_from_iterator(LICENSE.read_text().splitlines(), trainer)
    # A piece for the newline, as Gemma has: a run of characters without a piece is one token to the offsets.
    added = [*family.special, "\n", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces = [(piece, -20.0) for piece in added]
    learnt = [(trained.id_to_token(index), -10.0) for index in range(1, trained.get_vocab_size())]
    made = Tokenizer(models.Unigram([("<unk>", 0.0), *pieces, *learnt], unk_id=0, byte_fallback=True))
    made.pre_tokenizer = metaspace
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    made.add_special_tokens(list(family.special))
    return made
