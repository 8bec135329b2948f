"""`harness promote` and `harness registry`: what they read, do and print."""

import argparse
import getpass
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from harness.core.errors import UsageError, nearest

if TYPE_CHECKING:
    from harness.registry.protocol import Act, Registry


# `harness verify`: the chain of evidence of a run, a gate decision or an alias, checked offline.


def verify(options: argparse.Namespace) -> int:
    from harness.checkpoint.alias import registry_folder, resolved
    from harness.lineage.verify import broken, verify_evidence

    if options.overrides:
        raise UsageError(f"verify reads no configuration; it does not take: {', '.join(options.overrides)}")
    name = resolved(options.run, registry_folder(options.runs_dir, options.registry))
    folder = next((path for path in (Path(name), options.runs_dir / name) if path.is_dir()), None)
    if folder is None:
        known = [path.parent.name for path in options.runs_dir.glob("*/evidence.json")]
        raise UsageError(f"{options.run}: no such run, verdict folder or alias. {nearest(options.run, known)}")
    links = verify_evidence(folder)
    for link in links:
        print(link.line())
    count = len(broken(links))
    print(f"{folder}: {len(links)} links, {count} broken" if count else f"{folder}: {len(links)} links hold")
    return 12 if count else 0


WHO = ("HARNESS_USER", "GITHUB_ACTOR", "GITLAB_USER_LOGIN")


def promote(options: argparse.Namespace) -> int:
    from harness.registry.promotion import promote

    entry = promote(_registry(options), _run_folder(options.run, options.runs_dir), options.verdict, _act(options))
    print(f"{entry.alias} → {entry.model} (entry {entry.number}, {entry.hash})")
    return 0


def registry(options: argparse.Namespace) -> int:
    actions = {"list": _list, "rollback": _rollback, "verify": _verify, "policy": _policy, "publish": _publish}
    return actions[options.action](options)


def _list(options: argparse.Namespace) -> int:
    """Where every alias is, then the history, newest last."""
    found = _registry(options)
    entries = found.history()
    for alias in sorted({entry.alias for entry in entries}):
        current = found.current(alias)
        print(f"{alias} → {current.model if current else 'nothing yet'}")
    for entry in entries:
        what = f"{entry.model} " if entry.model else f"{entry.policy.get('name', '')} "
        why = f": {entry.why}" if entry.why else ""
        print(f"{entry.number:4} {entry.when} {entry.action} {entry.alias} {what}by {entry.who}{why} {entry.hash[:12]}")
    return 0


def _rollback(options: argparse.Namespace) -> int:
    entry = _registry(options).rollback(_act(options), options.to)
    print(f"{entry.alias} → {entry.model} (entry {entry.number}, {entry.hash})")
    return 0


def _verify(options: argparse.Namespace) -> int:
    found = _registry(options)
    links = found.verify()
    for link in links:
        print(link.line())
    if options.head is not None and all(entry.hash != options.head for entry in found.history()):
        print(f"BROKEN  head: no entry has the hash {options.head}: the history was cut off or written anew")
        return 12
    return 12 if any(link.broken for link in links) else 0


def _policy(options: argparse.Namespace) -> int:
    """Changes what an alias demands of its next candidate."""
    from harness.config.experiment import validate
    from harness.config.gate import GateConfig
    from harness.workflows.compose import gate_values

    found = _registry(options, "policy")
    named = _settings(options, "registry", "policy").get("policy")
    if named is None:
        raise UsageError("name the policy: harness registry policy policy=NAME [--alias ALIAS] [--why TEXT]")
    policy = validate(GateConfig, gate_values(named))
    entry = found.demand(_act(options), policy.model_dump(mode="json"))
    print(f"{entry.alias} demands {policy.name} (entry {entry.number}, {entry.hash})")
    return 0


def _publish(options: argparse.Namespace) -> int:
    """Moves W&B's aliases to where they are here."""
    from harness.registry.wandb_registry import WandbRegistry

    found = _registry(options)
    if not isinstance(found, WandbRegistry):
        raise UsageError("publish where? harness registry publish registry=wandb")
    for name in found.publish():
        print(name)
    return 0


def _registry(options: argparse.Namespace, *also: str) -> "Registry":
    """The embedded registry, or the one that `registry=NAME` (or $HARNESS_REGISTRY_KIND) names."""
    from harness.checkpoint.alias import registry_folder
    from harness.registry.protocol import open_registry

    kind = _settings(options, "registry", *also).get("registry") or os.environ.get("HARNESS_REGISTRY_KIND", "files")
    return open_registry(kind, registry_folder(options.runs_dir, options.registry))


def _settings(options: argparse.Namespace, *known: str) -> dict[str, str]:
    """The key=value arguments; raises UsageError for a key that is not known here."""
    pairs = dict(text.split("=", 1) for text in options.overrides)
    if unknown := sorted(set(pairs) - set(known)):
        raise UsageError(f"it takes {' and '.join(f'{name}=' for name in known)}, not: {', '.join(unknown)}")
    return pairs


def _act(options: argparse.Namespace) -> "Act":
    from harness.registry.protocol import Act

    known = next((os.environ[name] for name in WHO if os.environ.get(name)), None)
    return Act(options.alias, options.who or known or f"{getpass.getuser()}@{socket.gethostname()}", options.why)


def _run_folder(name: str, runs: Path) -> Path:
    for folder in (Path(name), runs / name):
        if folder.is_dir():
            return folder
    known = [path.parent.name for path in runs.glob("*/verdict.json")]
    raise UsageError(f"{name}: no such run. {nearest(name, known)}")
