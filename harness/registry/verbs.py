"""`harness promote` and `harness registry`: what they read, do and print."""

import argparse
import getpass
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UsageError, nearest

if TYPE_CHECKING:
    from harness.registry.registry import Act, Registry

WHO = ("HARNESS_USER", "GITHUB_ACTOR", "GITLAB_USER_LOGIN")


def promote(options: argparse.Namespace) -> int:
    from harness.registry.promotion import promote

    entry = promote(_registry(options), _run_folder(options.run, options.runs_dir), options.verdict, _act(options))
    print(f"{entry.alias} → {entry.model} (entry {entry.number}, {entry.hash})")
    return 0


def registry(options: argparse.Namespace) -> int:
    if options.action != "policy" and any(o.startswith("policy=") for o in options.overrides):
        raise UsageError(f"registry {options.action} takes no policy=")
    actions = {"list": _list, "rollback": _rollback, "verify": _verify, "policy": _policy}
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
    from harness.compose import gate_values
    from harness.config import GateConfig, validate

    named = [o.removeprefix("policy=") for o in options.overrides if o.startswith("policy=")]
    if not named:
        raise UsageError("name the policy: harness registry policy policy=NAME [--alias ALIAS] [--why TEXT]")
    policy = validate(GateConfig, gate_values(named[-1]))
    entry = _registry(options).demand(_act(options), policy.model_dump())
    print(f"{entry.alias} demands {policy.name} (entry {entry.number}, {entry.hash})")
    return 0


def _registry(options: argparse.Namespace) -> "Registry":
    from harness.registry.alias import registry_folder
    from harness.registry.files import FileRegistry

    return FileRegistry(registry_folder(options.runs_dir, options.registry))


def _act(options: argparse.Namespace) -> "Act":
    from harness.registry.registry import Act

    known = next((os.environ[name] for name in WHO if os.environ.get(name)), None)
    return Act(options.alias, options.who or known or f"{getpass.getuser()}@{socket.gethostname()}", options.why)


def _run_folder(name: str, runs: Path) -> Path:
    for folder in (Path(name), runs / name):
        if folder.is_dir():
            return folder
    known = [path.parent.name for path in runs.glob("*/verdict.json")]
    raise UsageError(f"{name}: no such run. {nearest(name, known)}")
