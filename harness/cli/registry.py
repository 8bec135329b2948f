"""`harness promote`, `harness registry` and `harness verify`: manage aliases and check the evidence behind them."""

import argparse
import getpass
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.arguments import Subparsers, add_runs_dir, add_verb, existing_folder, refuse_settings
from harness.core.console import say, show
from harness.core.errors import ExitCode, UsageError
from harness.core.layout import EVIDENCE, VERDICT

if TYPE_CHECKING:
    from harness.registry.protocol import AuditInfo, Registry

WHO = ("HARNESS_USER", "GITHUB_ACTOR", "GITLAB_USER_LOGIN")


def register(subparsers: Subparsers) -> None:
    promoting = add_verb(
        subparsers, "promote", promote,
        does="check a run's evidence again, then move an alias to the run",
        usage="RUN [options] [registry=wandb]",
        example="harness promote runs/NAME --why 'recall 0.97, no regression'",
    )  # fmt: skip
    promoting.add_argument("run", metavar="RUN", help="run with a passing verdict")
    promoting.add_argument(
        "--verdict", type=Path, metavar="DIR", help="the verdict against the alias (written by gate ... --out DIR)"
    )
    managing = add_verb(
        subparsers, "registry", registry,
        does="make, list, roll back, verify or publish aliases, or set their policy",
        usage="{init,list,rollback,verify,policy,publish} [options] [policy=NAME] [registry=wandb]",
        example="harness registry rollback --why 'complaints about tone'",
    )  # fmt: skip
    managing.add_argument(
        "action", choices=tuple(ACTIONS), metavar="ACTION",
        help="init: make the registry and an alias; list: aliases and their history; rollback: move an alias back; "
        "verify: check the history; "
        "policy: set the policy that an alias requires of its next candidate; publish: move W&B's aliases to match",
    )  # fmt: skip
    managing.add_argument("--to", metavar="MODEL", help="rollback: the model, run or entry number to go back to")
    managing.add_argument("--head", metavar="HASH", help="verify: the hash of an entry that the history must contain")
    for parser in (promoting, managing):
        parser.add_argument("--alias", default="production", metavar="NAME", help="default: production")
        parser.add_argument("--why", default="", metavar="TEXT", help="the reason, kept in the history")
        parser.add_argument("--who", metavar="NAME", help="who decides (default: the user of the CI job, else you)")
    checking = add_verb(
        subparsers, "verify", verify,
        does="check a run's whole chain of evidence, offline",
        usage="RUN [options]",
        example="harness verify runs/NAME",
    )  # fmt: skip
    checking.add_argument("run", metavar="RUN", help="run, verdict folder, or alias")
    for parser in (promoting, managing, checking):
        parser.add_argument(
            "--registry", type=Path, metavar="DIR", help="default: $HARNESS_REGISTRY, else beside the runs"
        )
        add_runs_dir(parser)


def verify(options: argparse.Namespace) -> int:
    """INVALID if a link of the chain is broken, else DONE."""
    from harness.checkpoint.alias import registry_folder, require_promoted, resolved
    from harness.lineage.verify import broken_links, verify_evidence

    refuse_settings("verify", options.overrides)
    registry = registry_folder(options.runs_dir, options.registry)
    name = resolved(options.run, registry)
    if not any(path.is_dir() for path in (Path(name), options.runs_dir / name)):
        require_promoted(name, registry)
    folder = existing_folder(name, options.runs_dir, "run, verdict folder or alias", EVIDENCE)
    links = verify_evidence(folder)
    for link in links:
        show(link.line())
    count = len(broken_links(links))
    show(f"{folder}: {len(links)} links, {count} broken" if count else f"{folder}: {len(links)} links hold")
    return ExitCode.INVALID if count else ExitCode.DONE


def promote(options: argparse.Namespace) -> int:
    from harness.checkpoint.alias import registry_folder
    from harness.registry.promotion import promote

    folder = existing_folder(options.run, options.runs_dir, "run", VERDICT)
    place = registry_folder(_runs_of(folder, options.runs_dir), options.registry)
    entry = promote(_registry(options, folder=place), folder, options.verdict, _act(options))
    say(f"· registry: {place}")
    show(f"{entry.alias} → {entry.model} (entry {entry.number}, {entry.hash})")
    return ExitCode.DONE


def _runs_of(run: Path, runs_dir: Path) -> Path:
    """The folder of the runs that a run belongs to: the registry beside it is the run's own, wherever one stands."""
    return runs_dir if run.resolve().parent == runs_dir.resolve() else run.resolve().parent


def registry(options: argparse.Namespace) -> int:
    return ACTIONS[options.action](options)


def _init(options: argparse.Namespace) -> int:
    """Makes the alias, and the registry where there is none."""
    from harness.checkpoint.alias import registry_folder

    entry = _registry(options).create(_act(options))
    print(f"{entry.alias} made in {registry_folder(options.runs_dir, options.registry)} (entry {entry.number})")
    return ExitCode.DONE


def _list(options: argparse.Namespace) -> int:
    """Prints the model of every alias, then the history, newest last."""
    found = _registry(options)
    entries = found.history()
    for alias in sorted({entry.alias for entry in entries}):
        current = found.current(alias)
        show(f"{alias} → {current.model if current else 'nothing yet'}")
    for entry in entries:
        what = f"{entry.model} " if entry.model else f"{entry.policy.get('name', '')} "
        why = f": {entry.why}" if entry.why else ""
        show(f"{entry.number:4} {entry.when} {entry.action} {entry.alias} {what}by {entry.who}{why} {entry.hash[:12]}")
    return ExitCode.DONE


def _rollback(options: argparse.Namespace) -> int:
    entry = _registry(options).rollback(_act(options), options.to)
    show(f"{entry.alias} → {entry.model} (entry {entry.number}, {entry.hash})")
    return ExitCode.DONE


def _verify(options: argparse.Namespace) -> int:
    """INVALID if the history is broken or lacks the entry of --head."""
    found = _registry(options)
    links = found.verify()
    for link in links:
        show(link.line())
    if options.head is not None and all(entry.hash != options.head for entry in found.history()):
        print(f"BROKEN  head: no entry has the hash {options.head}: the history was cut off or rewritten")
        return ExitCode.INVALID
    return ExitCode.INVALID if any(link.broken for link in links) else ExitCode.DONE


def _policy(options: argparse.Namespace) -> int:
    """Sets the policy that an alias requires of its next candidate."""
    from harness.config.experiment import validate
    from harness.config.gate import GateConfig
    from harness.workflows.compose import gate_values

    found = _registry(options, "policy")
    named = _settings(options, "registry", "policy").get("policy")
    if named is None:
        raise UsageError("there is no policy to set: harness registry policy policy=NAME [--alias ALIAS] [--why TEXT]")
    policy = validate(GateConfig, gate_values(named))
    entry = found.set_policy(_act(options), policy.model_dump(mode="json"))
    print(f"{entry.alias} now requires policy {policy.name} (entry {entry.number}, {entry.hash})")
    return ExitCode.DONE


def _publish(options: argparse.Namespace) -> int:
    """Moves W&B's aliases to match the registry."""
    from harness.registry.wandb_registry import WandbRegistry

    found = _registry(options)
    if not isinstance(found, WandbRegistry):
        raise UsageError("publish needs a W&B registry: harness registry publish registry=wandb")
    for name in found.publish():
        print(name)
    return ExitCode.DONE


ACTIONS = {
    "init": _init,
    "list": _list,
    "rollback": _rollback,
    "verify": _verify,
    "policy": _policy,
    "publish": _publish,
}


def _registry(options: argparse.Namespace, *also: str, folder: Path | None = None) -> "Registry":
    """The embedded registry, or the one that `registry=NAME` (or $HARNESS_REGISTRY_KIND) names."""
    from harness.checkpoint.alias import registry_folder
    from harness.registry.protocol import open_registry

    kind = _settings(options, "registry", *also).get("registry") or os.environ.get("HARNESS_REGISTRY_KIND", "files")
    return open_registry(kind, folder or registry_folder(options.runs_dir, options.registry))


def _settings(options: argparse.Namespace, *known: str) -> dict[str, str]:
    """The key=value settings; raises UsageError for an unknown key."""
    pairs = dict(text.split("=", 1) for text in options.overrides)
    if unknown := sorted(set(pairs) - set(known)):
        raise UsageError(f"unknown setting {', '.join(unknown)}. Valid: {', '.join(f'{name}=' for name in known)}.")
    return pairs


def _act(options: argparse.Namespace) -> "AuditInfo":
    from harness.registry.protocol import AuditInfo

    known = next((os.environ[name] for name in WHO if os.environ.get(name)), None)
    return AuditInfo(options.alias, options.who or known or f"{getpass.getuser()}@{socket.gethostname()}", options.why)
