"""`harness serve`: starts the vLLM server for production exactly as an evaluation does."""

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from harness.checkpoint.resolve import contract_of, locate
from harness.config.experiment import Config
from harness.core.errors import UsageError
from harness.evaluate.checkpoints import require_saved
from harness.prompt.static import check_contract, require_sound
from harness.serve.server import server_command, server_environment, usable_port
from harness.workflows.verify_template import KEY_VARIABLE, Model, plan_for, tokenizer_of


def serve(name: str, config: Config) -> NoReturn:
    """Replaces this process with the server, so that signals and the exit code are the server's own.

    Raises UsageError without a key in the environment, EvidenceFault when the prompt contract has errors.
    """
    if not os.environ.get(KEY_VARIABLE):
        raise UsageError(
            f"the server needs a key in the environment variable {KEY_VARIABLE}. Set it, for example with: "
            f"export {KEY_VARIABLE}=$(openssl rand -hex 32), and give the same key to the clients"
        )
    command, environment = prepared(name, config)
    os.execve(command[0], command, environment)  # noqa: S606


def command_line(name: str, config: Config) -> str:
    """The shell command that starts the server: the environment variables it needs, then vLLM's own command."""
    command, environment = prepared(name, config)
    needed = {k: v for k, v in environment.items() if os.environ.get(k) != v and k != KEY_VARIABLE}
    settings = [f'{KEY_VARIABLE}="${KEY_VARIABLE}"', *(f"{k}={shlex.quote(v)}" for k, v in sorted(needed.items()))]
    return " ".join(["env", *settings, shlex.join(command)])


def prepared(name: str, config: Config) -> tuple[list[str], Mapping[str, str]]:
    """The command and the environment of a model's server, after the checks that need no server.

    As in an evaluation, the contract is the one saved with the model, or the configured template where there is none.
    """
    folder, base = locate(name, config.model, Path(config.runs_dir))
    model = Model(folder, base, contract_of(folder, base, config.template))
    require_sound(check_contract(model.contract, tokenizer_of(model)), "the prompt contract")
    require_saved(folder, base)
    plan = plan_for(model, config, _prompt_folder(model, config))
    command = server_command(plan, config.serve, usable_port(config.serve))
    return [sys.executable, *command[1:]], server_environment(config.serve, os.environ.get(KEY_VARIABLE, ""))


def _prompt_folder(model: Model, config: Config) -> Path:
    """The folder from which the server reads template and stop ids. It lies beside the runs and is kept."""
    return Path(config.runs_dir).resolve() / "serving" / model.contract.digest[:16]
