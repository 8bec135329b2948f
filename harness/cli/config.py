"""`harness config`: the groups of the configuration, their options and keys, and the values that result."""

import argparse
import json
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from harness.cli.arguments import Subparsers, add_verb
from harness.core.errors import ExitCode, UsageError, nearest

if TYPE_CHECKING:
    from pydantic import BaseModel


def register(subparsers: Subparsers) -> None:
    parser = add_verb(
        subparsers, "config", show,
        does="show the configuration: groups, options, keys, values and where they come from",
        usage="[GROUP] [key=value ...]",
        example="harness config train experiment=finance_disclaimer train.lora.r=32",
    )  # fmt: skip
    parser.add_argument("group", nargs="?", metavar="GROUP", help="show the options and keys of this group")


def show(options: argparse.Namespace) -> int:
    from harness.config.experiment import Config
    from harness.core.redact import without_secrets
    from harness.workflows.compose import choices, groups

    if options.group is None:
        for group in groups():
            print(f"{group:12} {', '.join(choices(group))}")
        print(
            "\nThe options and keys of one: harness config GROUP. A value of one: harness config GROUP group.key=value"
        )
        return ExitCode.DONE
    if options.group not in groups():
        raise UsageError(f"config {options.group}: there is no such group. {nearest(options.group, groups())}")
    print(f"options of {options.group}: {', '.join(choices(options.group))}")
    field = Config.model_fields.get(options.group)
    if field is None:
        print("An experiment picks an option of every group and sets keys of any of them.")
        return ExitCode.DONE
    overrides = _usable(options.overrides)
    values, origins = _values(overrides)
    print()
    for key, text, description in _keys(field.annotation, options.group, without_secrets(values), origins):
        print(f"{key} = {text}")
        print(textwrap.indent(textwrap.fill(description, 100), "    "))
    return ExitCode.DONE


def print_configuration(overrides: Sequence[str], what: str, info: bool) -> int:
    """Prints the composed configuration as YAML (`run --cfg`), or each value with its origin (`run --info`)."""
    from omegaconf import OmegaConf

    from harness.core.redact import command_without_secrets, without_secrets
    from harness.workflows.compose import config_for

    config = config_for(overrides)
    if info:
        values, origins = _values(overrides)
        for key, value in _leaves(without_secrets(values)):
            print(f"{key} = {json.dumps(value, ensure_ascii=False, default=str)}    # {origins(key)}")
        return ExitCode.DONE
    shown = without_secrets(config.model_dump(mode="json"))
    if what in ("hydra", "all"):
        shown = {"hydra": {"overrides": {"task": [command_without_secrets(one) for one in overrides]}}} | (
            shown if what == "all" else {}
        )
    print(OmegaConf.to_yaml(OmegaConf.create(shown)), end="")
    return ExitCode.DONE


def _usable(overrides: Sequence[str]) -> list[str]:
    """The overrides, with a name for the run, which the keys of a group do not depend on."""
    named = any(override.startswith(("name=", "experiment=")) for override in overrides)
    return [*overrides, *([] if named else ["name=config"])]


def _values(overrides: Sequence[str]) -> tuple[dict[str, Any], Any]:
    """The composed values, and a function that says where the value of a key comes from."""
    from harness.workflows.compose import composed, settable

    arguments = [settable(override) for override in overrides]
    values = composed(arguments)
    without = composed([a for a in arguments if not a.startswith("++")])
    shipped = composed(["name=config"])

    def origin(key: str) -> str:
        def at(tree: Any) -> Any:
            for part in key.split("."):
                tree = tree.get(part, "") if isinstance(tree, dict) else ""
            return tree

        if at(values) != at(without):
            return "command line"
        if at(values) != at(shipped):
            chosen = [override for override in overrides if override.split("=")[0] in ("experiment", key.split(".")[0])]
            return ", ".join(chosen) or "conf/"
        return f"conf/{key.split('.')[0]}" if at(values) != "" else "default"

    return values, origin


def _leaves(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(values, dict) and values:
        for name, value in values.items():
            yield from _leaves(value, f"{prefix}.{name}".lstrip("."))
    else:
        yield prefix, values


def _keys(model: Any, prefix: str, values: Any, origins: Any) -> Iterator[tuple[str, str, str]]:
    """(key, value and its origin, description) of every key of a group and of the groups in it."""
    fields: dict[str, Any] = getattr(model, "model_fields", {})
    for name, field in fields.items():
        key = f"{prefix}.{name}"
        inner: type[BaseModel] | None = field.annotation if hasattr(field.annotation, "model_fields") else None
        if inner is not None:
            yield from _keys(inner, key, values, origins)
            continue
        tree = values
        for part in key.split("."):
            tree = tree.get(part) if isinstance(tree, dict) else None
        if tree is None and not field.is_required():
            text = json.dumps(field.get_default(call_default_factory=True), ensure_ascii=False, default=str)
            source = "default"
        else:
            text, source = json.dumps(tree, ensure_ascii=False, default=str), origins(key)
        yield key, f"{text}  ({source})", field.description or ""
