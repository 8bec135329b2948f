"""The prompt contract: everything that decides which ids reach the model and when generation ends."""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.core.errors import EvidenceFault
from harness.prompt.preamble import SystemPolicy

CONTRACT_FILE = "prompt_contract.json"
NEUTRAL: dict[str, int | float] = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
GREEDY: dict[str, int | float] = {"temperature": 0.0, **NEUTRAL}


class Golden(BaseModel):
    """One conversation with what training makes of it: ids, loss mask, and how many of the ids are the prompt.

    `refused` holds the template's own message where it does not take such a conversation; ids are empty then.
    `untrainable` says why a conversation can be asked and not trained on; ids are those of the prompt then.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    kwargs: dict[str, str | bool | int] = {}
    ids: list[int] = []
    mask: list[int] = []
    prompt_length: int = 0
    refused: str | None = None
    untrainable: str | None = None

    @property
    def prompt(self) -> list[int]:
        return self.ids[: self.prompt_length]

    @property
    def arguments(self) -> dict[str, Any]:
        """What the template is given besides the messages."""
        return {**({"tools": self.tools} if self.tools else {}), **self.kwargs}

    @property
    def question(self) -> list[dict[str, Any]]:
        """The conversation without its last answer: what a client sends."""
        return self.messages[:-1]


class Contract(BaseModel):
    """One prompt template with the tokenizer it was made for.

    `digest` covers all fields but `libraries`: two runs with equal digests feed a model the same ids.
    `template` is what every reader gets, preamble included. `turns` shows how the template frames each role:
    the text before and after the content. `bos` and `eos` are None where the tokenizer has none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[2] = 2
    template_name: str
    template: str
    template_sha256: str
    template_kwargs: dict[str, str | bool | int]
    system_policy: SystemPolicy
    system: str | None
    turns: dict[str, tuple[str, str]]
    generation_prompt: str
    content_format: Literal["string"] = "string"
    special_tokens: dict[str, int]
    guarded: list[str]
    bos: str | None
    bos_policy: Literal["none", "template"]
    eos: str | None
    end_of_turn: str
    end_of_turn_id: int
    stop_ids: list[int]
    max_length: int
    truncation: Literal["never"] = "never"
    sampling: dict[str, int | float]
    tokenizer_sha256: str
    golden: list[Golden]
    libraries: dict[str, str]

    @property
    def digest(self) -> str:
        """sha256 of the decisive fields as canonical JSON."""
        decisive = self.model_dump(exclude={"libraries"})
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    def save(self, folder: Path) -> None:
        (folder / CONTRACT_FILE).write_text(_lines({"digest": self.digest, **self.model_dump(mode="json")}))

    @classmethod
    def load(cls, folder: Path) -> "Contract":
        """The contract beside a checkpoint or evaluation; raises EvidenceFault when unreadable or edited."""
        path = folder / CONTRACT_FILE
        try:
            values = json.loads(path.read_text())
            digest = values.pop("digest", None)
            contract = cls.model_validate(values)
        except FileNotFoundError:
            raise EvidenceFault(f"{path} is missing: the prompt this model was made for is unknown") from None
        except ValidationError as error:
            raise EvidenceFault(f"{path} is not a prompt contract: {error.errors()[0]['msg']}") from None
        except (ValueError, AttributeError, TypeError) as error:
            raise EvidenceFault(f"{path} is not a prompt contract: {error}") from None
        if sha256_text(contract.template) != contract.template_sha256:
            raise EvidenceFault(f"{path}: the template text does not match its sha256; the file was edited")
        if contract.digest != digest:
            raise EvidenceFault(f"{path}: its fields do not match its digest; the file was edited")
        return contract


def sha256_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def tokenizer_sha256(tokenizer: Any) -> str:
    """Digest of vocabulary, merges, normalisation and added tokens (the fast tokenizer's own JSON).

    Padding and truncation are settings of the last call, not of the tokenizer, and left out.
    """
    settings = json.loads(tokenizer.backend_tokenizer.to_str())
    return sha256_text(json.dumps({**settings, "padding": None, "truncation": None}, sort_keys=True))


def _lines(fields: dict[str, Any]) -> str:
    """JSON with a line a field, and a line a golden conversation: token ids would fill thousands of lines."""
    golden = ",\n  ".join(json.dumps(entry, ensure_ascii=False) for entry in fields["golden"])
    lines = [
        f"{json.dumps(key)}: [\n  {golden}\n ]" if key == "golden" else f"{json.dumps(key)}: {json.dumps(value)}"
        for key, value in fields.items()
    ]
    return "{\n " + ",\n ".join(lines) + "\n}\n"
