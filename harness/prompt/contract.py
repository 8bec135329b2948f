"""The prompt contract: everything that decides which ids reach the model, and when generation ends."""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.core.errors import DataError, EvidenceFault
from harness.core.files import read_json
from harness.core.layout import CONTRACT
from harness.prompt.preamble import SystemPolicy
from harness.records.base import version_refused

NEUTRAL: dict[str, int | float] = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
GREEDY: dict[str, int | float] = {"temperature": 0.0, **NEUTRAL}


class Golden(BaseModel):
    """One conversation as training renders it: ids, loss mask, and the number of ids that form the prompt.

    `refused` holds the template's own message if it refuses such a conversation; the ids are empty then.
    `untrainable` says why a conversation can be sent to a model, but not trained on; the ids are those of the prompt.
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
        """The arguments of the template besides the messages."""
        return {**({"tools": self.tools} if self.tools else {}), **self.kwargs}

    @property
    def question(self) -> list[dict[str, Any]]:
        """The conversation without its last answer: what a client sends."""
        return self.messages[:-1]


class Contract(BaseModel):
    """One prompt template with the tokenizer it was made for.

    `digest` covers all fields but `libraries`: two runs with equal digests feed a model the same ids.
    `template` is what every reader gets, including the preamble. `turns` shows how the template frames each role: the
    text before and after the content. `guarded` tokens stay text in messages; `unguarded` are those that the
    configuration took from them. `bos` and `eos` are None where the tokenizer has none.
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
    unguarded: list[str] = []
    bos: str | None
    bos_policy: Literal["none", "template", "never"]
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
        decisive = self.model_dump(exclude={"libraries", *self._left_out})
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    @property
    def _left_out(self) -> set[str]:
        """Fields that earlier versions do not know: they are written only where they say something."""
        return set() if self.unguarded else {"unguarded"}

    def save(self, folder: Path) -> None:
        # One line for each field and golden conversation, as token ids would fill thousands of lines.
        fields = {"digest": self.digest, **self.model_dump(mode="json", exclude=self._left_out)}
        golden = ",\n  ".join(json.dumps(entry, ensure_ascii=False) for entry in fields["golden"])
        lines = [
            f"{json.dumps(key)}: [\n  {golden}\n ]" if key == "golden" else f"{json.dumps(key)}: {json.dumps(value)}"
            for key, value in fields.items()
        ]
        (folder / CONTRACT).write_text("{\n " + ",\n ".join(lines) + "\n}\n")

    @classmethod
    def load(cls, folder: Path) -> "Contract":
        """The contract in a checkpoint or evaluation folder. Raises EvidenceFault if it is unreadable or edited."""
        path = folder / CONTRACT
        try:
            values = read_json(path)
            digest = values.pop("digest", None)
            contract = cls.model_validate(values)
        except FileNotFoundError:
            raise EvidenceFault(f"{path} is missing: the prompt that this model was trained on is unknown") from None
        except ValidationError as error:
            if reason := version_refused(error):
                raise EvidenceFault(f"{path} {reason}") from None
            raise EvidenceFault(f"{path} is not a prompt contract: {error.errors()[0]['msg']}") from None
        except (DataError, ValueError, AttributeError, TypeError) as error:
            raise EvidenceFault(f"{path} is not a prompt contract: {error}") from None
        if sha256_text(contract.template) != contract.template_sha256:
            raise EvidenceFault(f"{path}: the template does not match its sha256; the file was edited")
        if contract.digest != digest:
            raise EvidenceFault(f"{path}: the fields do not match its digest; the file was edited")
        return contract


def sha256_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def tokenizer_sha256(tokenizer: Any) -> str:
    """Digest of vocabulary, merges, normalisation and added tokens (the fast tokenizer's own JSON).

    Padding and truncation are left out: they are settings of the last call, not of the tokenizer.
    """
    settings = json.loads(tokenizer.backend_tokenizer.to_str())
    return sha256_text(json.dumps({**settings, "padding": None, "truncation": None}, sort_keys=True))
