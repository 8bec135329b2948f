"""Locks the dependencies with hashes, and makes what a release carries: a bill of materials and a list of weaknesses.

    python scripts/lock.py            # writes requirements/{core,cpu,gpu}.txt again, at the installed versions
    python scripts/lock.py --release  # writes dist/bom-*.cdx.json and asks for known vulnerabilities

Needs the extra `release` (uv, cyclonedx-bom, pip-audit). Packages come from the index that pip and uv are configured
for; UV_FIND_LINKS names a folder of wheels for the cpu build, whose torch the index may lack.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / "requirements"
LOCKS: dict[str, list[str]] = {
    "core": ["--universal"],
    "cpu": ["--extra", "cpu", "--python-platform", "x86_64-manylinux_2_28"],
    "gpu": ["--extra", "gpu", "--python-platform", "x86_64-manylinux_2_28"],
}
OPTIONS = ["--python-version", "3.11", "--generate-hashes", "--no-header", "--no-annotate", "--no-emit-find-links"]


def lock(name: str) -> None:
    """Writes one lock.

    Versions are those installed here, so that what was tested is what is locked; those of the gpu build, which needs
    others than the cpu build, are the newest that fit.
    """
    environment = dict(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "installed.txt"
        installed = [(found.name, found.version) for found in metadata.distributions()]
        lines = {f"{package}=={version}" for package, version in installed if package not in ("tuning-harness", "pip")}
        constraints.write_text("" if name == "gpu" else "\n".join(sorted(lines)))
        command = ["uv", "pip", "compile", "pyproject.toml", *LOCKS[name], *OPTIONS]
        command += ["--constraint", str(constraints), "--output-file", str(REQUIREMENTS / f"{name}.txt"), "--quiet"]
        if name != "cpu":  # a folder of wheels for the cpu build would win over the index
            environment.pop("UV_FIND_LINKS", None)
        if subprocess.run(command, check=False, cwd=ROOT, env=environment).returncode:  # noqa: S603
            sys.exit(f"requirements/{name}.txt was not written: see uv's message above")


def release() -> int:
    """Writes a CycloneDX bill of materials for each lock and asks for known vulnerabilities of each package.

    Returns 1 if there are some, or if a lock's packages could not be looked up: no answer is not a clean answer.
    """
    out = ROOT / "dist"
    out.mkdir(exist_ok=True)
    bad = False
    for name in LOCKS:
        locked = str(REQUIREMENTS / f"{name}.txt")
        bill = ["cyclonedx-py", "requirements", locked, "--pyproject", "pyproject.toml", "--output-reproducible"]
        subprocess.run([*bill, "-o", str(out / f"bom-{name}.cdx.json")], check=True, cwd=ROOT)  # noqa: S603
        command = ["pip-audit", "--disable-pip", "--require-hashes", "--format", "json", "--requirement", locked]
        answer = subprocess.run(command, check=False, cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603
        packages = json.loads(answer)["dependencies"] if answer.strip() else []
        skipped = [one["name"] for one in packages if "skip_reason" in one]
        weak = [f"{one['name']} {one['version']}: {v['id']}" for one in packages for v in one.get("vulns", [])]
        print(f"dist/bom-{name}.cdx.json; {len(packages) - len(skipped)} of {len(packages)} packages looked up")
        print(
            "".join(f"  not looked up: {one}\n" for one in skipped[:5]) + "".join(f"  {one}\n" for one in weak), end=""
        )
        bad = bad or bool(weak) or len(skipped) == len(packages)
    return int(bad)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--release", action="store_true", help="bill of materials and known vulnerabilities")
    if parser.parse_args().release:
        sys.exit(release())
    REQUIREMENTS.mkdir(exist_ok=True)
    for one in LOCKS:
        lock(one)
