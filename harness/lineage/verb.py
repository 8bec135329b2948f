"""`harness verify`: the chain of evidence of a run, a gate decision or an alias, checked offline."""

import argparse
from pathlib import Path

from harness.errors import UsageError, nearest


def verify(options: argparse.Namespace) -> int:
    from harness.lineage.verify import broken, verify_evidence
    from harness.registry.alias import registry_folder, resolved

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
