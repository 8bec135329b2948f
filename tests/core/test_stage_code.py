"""A changed line of code makes the stages anew whose results depend on it, and no others."""

import shutil
from pathlib import Path

import pytest

import harness
from harness.core.code_digest import code_digest
from harness.evaluate.fingerprint import ANSWER_CODE, EVALUATION_CODE

STAGES = {
    "data": ("harness.data.audit:audit",),
    "train": ("harness.train.finetune:finetune",),
    "scale": ("harness.checkpoint.scaling:scale",),
    "answers": ANSWER_CODE,
    "evaluate": EVALUATION_CODE,
    "looks": ("harness.workflows.interim_looks:looks_of",),
}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package, with the digest of its code by stage."""
    root = tmp_path_factory.mktemp("code") / "harness"
    shutil.copytree(Path(harness.__file__).parent, root, ignore=shutil.ignore_patterns("__pycache__"))
    return root


def digests(package: Path) -> dict[str, str]:
    return {stage: code_digest(*entries, root=package) for stage, entries in STAGES.items()}


@pytest.mark.parametrize(
    ("file", "redone"),
    [
        ("cli/entry.py", set()),
        ("workflows/ci.py", set()),
        ("workflows/interim_looks.py", {"looks"}),
        ("report/html.py", set()),
        ("registry/promotion.py", set()),
        ("lineage/verify.py", set()),
        ("track/run.py", set()),
        ("gate/verdict.py", set()),
        ("gate/significance.py", {"looks"}),
        ("results/samples.py", {"looks"}),
        ("evaluate/plan.py", {"evaluate"}),
        ("evaluate/requests.py", {"answers", "evaluate"}),
        ("evaluate/domain.py", {"evaluate"}),
        ("serve/client.py", {"answers", "evaluate"}),
        ("serve/vllm_cpu/scoring.py", {"answers", "evaluate"}),
        ("train/fit.py", {"train"}),
        ("train/worker.py", {"train"}),
        ("data/dedupe.py", {"data"}),
        ("data/filters/toxicity.py", {"data"}),
        ("checkpoint/merge.py", {"evaluate"}),
        ("checkpoint/scaling.py", {"scale", "evaluate"}),
        ("prompt/render.py", {"train", "answers", "evaluate"}),
        ("prompt/templates/chatml.jinja", {"data", "train", "answers", "evaluate", "scale"}),
        ("behavior/disclaimer.py", {"data", "evaluate"}),
        ("model/load.py", {"data", "train", "answers", "evaluate", "scale"}),
        ("config/train.py", set(STAGES)),
        ("records/stages.py", set(STAGES) - {"scale"}),
        ("stats/paired.py", {"evaluate", "looks"}),
        ("core/errors.py", set(STAGES)),
    ],
)
def test_a_changed_line_makes_anew_what_depends_on_it(package: Path, file: str, redone: set[str]) -> None:
    before, path = digests(package), package / file
    text = path.read_text()
    path.write_text(f"{text}\nADDED = 1\n")
    try:
        after = digests(package)
    finally:
        path.write_text(text)
    assert {stage for stage in STAGES if before[stage] != after[stage]} == redone


def test_a_comment_makes_nothing_anew(package: Path) -> None:
    before = digests(package)
    for path in package.rglob("*.py"):
        path.write_text(f"# A comment.\n{path.read_text()}")
    assert digests(package) == before
