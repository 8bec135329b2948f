"""Writes docs/reference: the keys of the configuration, the verbs and the records, read from the code.

python scripts/reference.py            writes the pages
python scripts/reference.py --check    exit code 1 when a page is stale
"""

import argparse
import json
import re
import sys
import types
import typing
from collections.abc import Iterator, Sequence
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from harness.cli.parser import parser
from harness.config.data import BehaviorRule
from harness.config.experiment import Config
from harness.core import resources
from harness.data.settings import FILTERS, SECTIONS, config_class
from harness.records.base import Record

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "reference"
COMMAND = "python scripts/reference.py"
NOTE = f"<!-- Written by `{COMMAND}`; change the code, not this page. -->"
RECORD_MODULES = (
    "harness.records.stages",
    "harness.records.gate",
    "harness.records.sweep",
    "harness.lineage.chain",
    "harness.checkpoint.history",
)
FILES = {
    "Dataset": "`data/audit.json`",
    "TrainingSummary": "`checkpoint/training.json`",
    "Evaluation": "`eval/<label>/evaluation.json`",
    "Comparison": "`compare.json`",
    "Verdict": "`verdict.json`",
    "Sweep": "`sweep-<id>/sweep.json`",
    "Chain": "`evidence.json`",
    "HistoryEntry": "a line of the registry's `history.jsonl`",
}
WORDS = {str: "text", bool: "true or false", int: "whole number", float: "number", Any: "any value"}
VERDICT = "10 FAIL, 11 INCONCLUSIVE, 12 INVALID"
OWN_CODES = {
    "run": f"{VERDICT}; also 10 if the data exceed a limit of the audit",
    "sweep": f"{VERDICT}: the gravest of its members",
    "audit": "10 if the data exceed a limit of the audit",
    "train": "10 if the data exceed a limit of the audit",
    "evaluate": "12 if the prompt contract is unsound",
    "compare": "12 if the evaluations cannot be compared",
    "gate": VERDICT,
    "ci": VERDICT,
    "serve": "12 if the prompt contract is unsound",
    "template": "12 if a check fails",
    "promote": "10, 11 or 12 if the promotion is refused: the code of the most serious reason",
    "registry": "12 if the history or a model was changed",
    "verify": "12 if a link of the chain is broken",
}
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


# How a type is written: `whole number ≥ 1 or null`, `list of text`, `one of ...`.


def type_of(annotation: Any, metadata: Sequence[Any] = (), records: bool = False) -> str:
    """An annotation in words; `records` links the names of records to their sections."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_of(parts[0], [*metadata, *parts[1:]], records)
    if origin is Literal:
        return " \\| ".join(f"`{value}`" for value in parts)
    if origin in (typing.Union, types.UnionType):
        kinds = [type_of(part, metadata if part is not type(None) else (), records) for part in parts]
        return " or ".join(kinds)
    if annotation is type(None):
        return "`null`"
    if origin is list:
        inner = type_of(parts[0], (), records)
        return "list of groups" if inner == "group" else f"list of ({inner})" if " or " in inner else f"list of {inner}"
    if origin is tuple:
        return f"[{', '.join(type_of(part, (), records) for part in parts)}]"
    if origin is dict:
        return "group" if parts[1] is Any and not records else f"{{name: {type_of(parts[1], (), records)}}}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})" if records else "group"
    word = WORDS.get(annotation) or str(getattr(annotation, "__name__", annotation))
    return " ".join([word, _bounds(metadata)]).strip()


def _bounds(metadata: Sequence[Any]) -> str:
    flat = [inner for item in metadata for inner in (item.metadata if isinstance(item, FieldInfo) else [item])]
    bounds = [f"{sign} {getattr(item, name)}" for item in flat for name, sign in BOUNDS.items() if hasattr(item, name)]
    return " and ".join(bounds)


def default_of(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return ""
    if isinstance(value, list) and len(value) > 1 and value == list(get_args(get_args(field.annotation)[0])):
        return "all of them"
    if isinstance(value, dict | list) and not value:
        return "empty"
    return f"`{value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False, default=str)}`"


def models_in(annotation: Any) -> Iterator[tuple[str, type[BaseModel]]]:
    """The groups inside an annotation, with what stands between the key and theirs: '', '[]' or '.<name>'."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield "", annotation
        return
    origin, parts = get_origin(annotation), get_args(annotation)
    step = {list: "[]", dict: ".<name>"}.get(origin, "") if origin else ""
    for part in parts[1:] if origin is dict else parts:
        yield from ((step + inner, model) for inner, model in models_in(part))


# The configuration.


def rows_of(model: type[BaseModel], prefix: str, skip: Sequence[str] = ()) -> Iterator[str]:
    for name, field in model.model_fields.items():
        if name in skip:
            continue
        key = f"{prefix}.{name}".lstrip(".")
        yield f"| `{key}` | {type_of(field.annotation, field.metadata)} | {default_of(field)} | {field.description} |"
        for step, inner in models_in(field.annotation):
            yield from rows_of(inner, key + step)
        if key == "audit.filters":
            for filter_ in FILTERS:
                given = BehaviorRule.model_fields if filter_ == "behavior" else ()
                yield from rows_of(config_class(filter_), f"{key}.{filter_}", list(given))
        elif key.startswith("audit.") and name in SECTIONS:
            module, attribute = SECTIONS[name].split(":")
            yield from rows_of(getattr(import_module(module), attribute), key)


KEYS = ("| key | type | default | what it decides |", "| --- | --- | --- | --- |")


def configuration() -> Iterator[str]:
    groups = {name: model for name in Config.model_fields for model in [_group(name)] if model}
    yield from ("# Configuration", "", NOTE, "")
    yield "A configuration is one option of every group, the keys of an experiment, and overrides on the command line:"
    yield from ("", "```", "harness run experiment=finance_disclaimer train=qlora train.lora.r=32", "```", "")
    yield "`group=option` picks a file of `conf/<group>/`; `group.key=value` sets a key. A `conf/` folder in the"
    yield "working directory is searched first. An option file states what differs from the defaults below."
    yield "`<name>` stands for a name of your choice, `[]` for each item of a list."
    yield ""
    yield "Groups: " + " · ".join(f"[{name}](#{name})" for name in (*groups, "experiment"))
    yield from ("", "## Keys outside the groups", "", *KEYS)
    yield from rows_of(Config, "", list(groups))
    for name, model in groups.items():
        yield from ("", f"## {name}", "", *_paragraphs(model), "", *options(name), "", *KEYS, *rows_of(model, name))
    yield from (
        "",
        "## experiment",
        "",
        "An experiment picks an option of every group and sets keys of any of them.",
        "",
    )
    yield from options("experiment")


def _group(name: str) -> type[BaseModel] | None:
    found = Config.model_fields[name].annotation
    return found if isinstance(found, type) and issubclass(found, BaseModel) else None


def _paragraphs(model: type[BaseModel]) -> list[str]:
    return [line.strip() for line in (model.__doc__ or "").strip().splitlines()]


def options(group: str) -> Iterator[str]:
    """A table of the files of a group, each with the first sentence of its comment."""
    usual = _usual_options().get(group)
    yield from ("| option | what it is |", "| --- | --- |")
    for path in sorted((resources.CONF / group).glob("*.yaml")):
        lines = [line for line in path.read_text().splitlines() if not line.startswith("# @package")]
        comment = " ".join(line.lstrip("# ") for line in takewhile(lambda line: line.startswith("#"), lines))
        sentence = re.split(r"(?<=[.:]) (?=[A-Z])", comment)[0]
        yield f"| `{group}={path.stem}`{' (default)' if path.stem == usual else ''} | {_cell(sentence)} |"


def _usual_options() -> dict[str, str]:
    from harness.config.experiment import read_yaml

    chosen = read_yaml(resources.CONF / "config.yaml")["defaults"]
    return {key: value for entry in chosen if isinstance(entry, dict) for key, value in entry.items()}


# The command line.


def commands() -> Iterator[str]:
    root = parser()
    verbs = dict(_verbs(root))
    yield from ("# Command line", "", NOTE, "", str(root.description), "")
    yield from ("```", "harness VERB [arguments] [key=value ...]", "```", "")
    yield from ("| verb | does |", "| --- | --- |")
    yield from (f"| [`{name}`](#{name.replace(' ', '-')}) | {verb.description or ''} |" for name, verb in verbs.items())
    yield from ("", *_flags(root), "## Overrides and exit codes", "")
    yield from ("```", *str(root.epilog or "").splitlines(), "```")
    for name, verb in verbs.items():
        yield from ("", f"## {name}", "", verb.description or "", "", "```", _usage(name, verb), "```", "")
        yield from _flags(verb)
        yield from _example(verb.epilog or "")
        if name in OWN_CODES:
            yield from ("", f"Exit codes of its own: {OWN_CODES[name]}.")


def _verbs(root: argparse.ArgumentParser, prefix: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in root._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, verb in action.choices.items():
                yield f"{prefix}{name}", verb
                yield from _verbs(verb, f"{prefix}{name} ")


def _shown(verb: argparse.ArgumentParser) -> list[argparse.Action]:
    hidden = (argparse._SubParsersAction, argparse._HelpAction, argparse._VersionAction)
    return [a for a in verb._actions if not isinstance(a, hidden) and a.help != argparse.SUPPRESS]


def _usage(name: str, verb: argparse.ArgumentParser) -> str:
    parts = [_named(action) for action in _shown(verb) if not action.option_strings]
    parts += [f"[{_named(a)}]" if not a.required else _named(a) for a in _shown(verb) if a.option_strings]
    return " ".join(["harness", name, *parts, "[key=value ...]"])


def _named(action: argparse.Action) -> str:
    """`--out DIR`, `[CANDIDATE]`, `CHECKPOINT ...`, `show|verify`."""
    value = action.metavar if isinstance(action.metavar, str) else "|".join(map(str, action.choices or ()))
    if action.option_strings:
        name = action.option_strings[-1]
        return name if action.nargs == 0 else f"{name} {value or action.dest.upper()}"
    value = value or action.dest.upper()
    return {"?": f"[{value}]", "*": f"[{value} ...]", "+": f"{value} ..."}.get(str(action.nargs), value)


def _flags(verb: argparse.ArgumentParser) -> Iterator[str]:
    actions = _shown(verb)
    if not actions:
        return
    yield from ("| argument | default | meaning |", "| --- | --- | --- |")
    for action in actions:
        names = ", ".join(f"`{name}`" for name in action.option_strings[:-1])
        name = ", ".join(filter(None, [names, f"`{_cell(_named(action))}`"]))
        usual = action.default if action.default not in (None, False, [], "", argparse.SUPPRESS) else None
        told = (action.help or "") % {**vars(action), "prog": "harness"}
        yield f"| {name} | {'' if usual is None else f'`{usual}`'} | {_cell(told)} |"


def _example(epilog: str) -> Iterator[str]:
    lines = [line.strip() for line in epilog.removeprefix("example:").strip().splitlines()]
    if lines:
        yield from ("", "```", *lines, "```")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "\\<")


# The records.


def records() -> Iterator[str]:
    modules = [import_module(name) for name in RECORD_MODULES]
    found = [r for m in modules for r in vars(m).values() if isinstance(r, type) and r.__module__ == m.__name__]
    kinds = [kind for kind in found if issubclass(kind, Record)]
    yield from ("# Records", "", NOTE, "")
    yield "What the stages write beside their data, as JSON. A file holds the record of its name; the other records are"
    yield "parts of those. A missing number is `null`, never 0."
    yield from ("", "| file | record |", "| --- | --- |")
    yield from (f"| {path} | [{name}](#{name.lower()}) |" for name, path in FILES.items())
    for kind in kinds:
        base = kind.__mro__[1]
        yield from ("", f"## {kind.__name__}", "", *_paragraphs(kind), "")
        if base is not Record:
            yield from (f"It also has every field of [{base.__name__}](#{base.__name__.lower()}).", "")
        yield from ("| field | type | default | meaning |", "| --- | --- | --- | --- |")
        for name, field in kind.model_fields.items():
            if name in kind.__annotations__:
                shown = type_of(field.annotation, field.metadata, records=True)
                yield f"| `{field.alias or name}` | {shown} | {default_of(field)} | {field.description} |"


PAGES = {"configuration.md": configuration, "cli.md": commands, "records.md": records}


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--check", action="store_true", help="write nothing; exit code 1 when a page is stale")
    check = options.parse_args().check
    stale = []
    for name, page in PAGES.items():
        path, text = FOLDER / name, "\n".join(page()) + "\n"
        if path.is_file() and path.read_text() == text:
            continue
        stale.append(f"docs/reference/{name}")
        if not check:
            FOLDER.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    if stale:
        print(f"{'stale' if check else 'written'}: {', '.join(stale)}" + (f"; run: {COMMAND}" if check else ""))
    return 1 if stale and check else 0


if __name__ == "__main__":
    sys.exit(main())
