"""Whether a verdict belongs to the files beside it and to the evaluations it names."""

from collections.abc import Mapping
from pathlib import Path

from harness.config import GateConfig
from harness.records import Side, Verdict
from harness.store import sha256_file, sha256_json


def strays(
    verdict: Verdict, folder: Path, policy: GateConfig | None = None, evidence: Mapping[str, str] | None = None
) -> list[str]:
    """Why a verdict is another run's or was reached on other files, in words.

    `evidence` maps "baseline" and "candidate" to the digests of the evaluations as they are now (Evidence.sha256).
    """
    faults = []
    path = folder / "compare.json"
    if not path.is_file() or sha256_file(path) != verdict.compare_sha256:
        faults.append(
            f"{folder / 'verdict.json'} was not reached on the compare.json beside it: another run's, or edited"
        )
    if policy is not None and sha256_json(policy.model_dump(mode="json")) != verdict.policy_sha256:
        faults.append(f"the verdict was reached under another policy than {policy.name} is now")
    sides: dict[str, Side] = {"baseline": verdict.baseline, "candidate": verdict.candidate}
    for name, digest in (evidence or {}).items():
        if sides[name].evidence_sha256 != digest:
            faults.append(f"the verdict was reached on another evaluation of the {name} ({sides[name].label})")
    return faults
