"""What the digest of the code follows, and which changes it notices."""

import ast
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.code_digest import code_digest, code_files

PACKAGE = {
    "__init__.py": "from pkg.facade import everything\n",
    "facade.py": "everything = 1\n",
    "train/__init__.py": '"""Nothing but a docstring."""\n',
    "train/fit.py": (
        '"""Fits."""\n\nfrom pkg.train import steps\nfrom . import losses\n\nRATE = 0.1\n\n\n'
        'def fit():\n    """Returns nothing."""\n    from ..core.machine import cores\n\n    return cores() * RATE\n\n'
        "class Fit:\n    pass\n"
    ),
    "train/steps.py": "import numpy\nimport pkg.core.clock\n\nSTEPS = 10\n",
    "train/losses.py": "from pkg.train.fit import fit  # a cycle\n",
    "train/unused.py": "UNUSED = 1\n",
    "core/__init__.py": "",
    "core/machine.py": "def cores():\n    return 2\n",
    "core/clock.py": "from time import time\n",
}
FIT = ["core/clock.py", "core/machine.py", "train/fit.py", "train/losses.py", "train/steps.py"]


class Package:
    """Writes each variant of the package to a folder of its own: the digest may not depend on the place."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.written = 0

    def write(self, changes: dict[str, str | None]) -> Path:
        self.written += 1
        root = self.folder / str(self.written) / "pkg"
        for name, text in (PACKAGE | changes).items():
            if text is not None:
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_text(text)
        return root

    def files(self, entry: str, changes: dict[str, str | None]) -> list[str]:
        root = self.write(changes)
        return [path.relative_to(root).as_posix() for path in code_files(entry, root=root)]

    def digest(self, entry: str = "pkg.train.fit:fit", changes: dict[str, str | None] | None = None) -> str:
        return code_digest(entry, root=self.write(changes or {}))


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return Package(tmp_path)


def edited(name: str, old: str, new: str) -> dict[str, str | None]:
    assert old in PACKAGE[name]
    return {name: PACKAGE[name].replace(old, new)}


def test_imports_are_followed_in_functions_relative_and_around_cycles(package: Package) -> None:
    assert package.files("pkg.train.fit:fit", {}) == FIT
    assert package.files("pkg.train.losses", {}) == FIT


@pytest.mark.parametrize(
    "line",
    [
        "import pkg.train.unused",
        "import pkg.train.unused as other",
        "from pkg.train import unused",
        "from pkg.train.unused import UNUSED",
        "from pkg.train.unused import *",
        "from . import unused",
        "from .unused import UNUSED",
        "from ..train import unused",
        "from .. import train; from ..train.unused import UNUSED",
        "class Late:\n    async def load(self):\n        with self:\n            import pkg.train.unused",
        'KINDS = {"late": "pkg.train.unused:Late"}',
        'COMMAND = ["python", "-m", "pkg.train.unused"]',
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING: pass\nelse: import pkg.train.unused",
    ],
)
def test_every_way_to_name_a_module_is_followed(package: Package, line: str) -> None:
    assert package.files("pkg.train.late", {"train/late.py": line + "\n"}) == ["train/late.py", "train/unused.py"]


@pytest.mark.parametrize(
    "line",
    [
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING: import pkg.train.unused",
        "import typing\nif typing.TYPE_CHECKING: from . import unused",
        '"pkg.train.unused:Late"',
        '# "pkg.train.unused:Late"',
        'KINDS = {"late": "see pkg.train.unused:Late", "later": "pkg.train.unusual:Late"}',
        "from pkg import everything",
        "import pkg",
        "from unused import UNUSED",
    ],
)
def test_what_is_not_needed_at_run_time_is_not_followed(package: Package, line: str) -> None:
    assert package.files("pkg.train.late", {"train/late.py": line + "\n"}) == ["train/late.py"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("RATE = 0.1", "RATE = 0.1  # per step"),
        ("RATE = 0.1", "\n\n\nRATE   =   (0.1)"),
        ("RATE = 0.1", 'RATE = 0.1\n"""How fast."""'),
        ('"""Fits."""', '"""Fits a model."""'),
        ('"""Fits."""', ""),
        ('"""Returns nothing."""', '"""Returns the speed."""'),
        ("class Fit:\n", 'class Fit:\n    """A fit."""\n\n'),
    ],
)
def test_comments_formatting_and_docstrings_do_not_count(package: Package, old: str, new: str) -> None:
    assert package.digest(changes=edited("train/fit.py", old, new)) == package.digest()


def test_imports_for_type_checkers_do_not_count(package: Package) -> None:
    def checked(block: str) -> str:
        text = f"from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    {block}\n"
        return package.digest("pkg.train.late", {"train/late.py": text})

    assert checked("import pkg.train.unused") == checked("from pkg.train.fit import Fit")


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("train/fit.py", "0.1", "0.2"),
        ("train/fit.py", "* RATE", "+ RATE"),
        ("train/fit.py", "cores() * RATE", "cores(RATE)"),
        ("train/steps.py", "10", "11"),
        ("train/steps.py", "10", "10.0"),
        ("train/steps.py", "10", '"10"'),
        ("core/machine.py", "2", "None"),
        ("core/machine.py", "return 2", "yield 2"),
        ("core/machine.py", "cores()", "cores(*, many=None)"),
        ("core/clock.py", "time import", "datetime import"),
    ],
)
def test_one_change_anywhere_in_the_closure_is_noticed(package: Package, name: str, old: str, new: str) -> None:
    assert package.digest(changes=edited(name, old, new)) != package.digest()


def test_changes_outside_the_closure_are_not_noticed(package: Package) -> None:
    for name in ("__init__.py", "facade.py", "train/unused.py"):
        assert package.digest(changes={name: "CHANGED = 1\n"}) == package.digest()
    assert package.digest("pkg.core.machine") != package.digest("pkg.core.clock")


def test_a_renamed_module_is_noticed(package: Package) -> None:
    renamed = edited("train/steps.py", "pkg.core.clock", "pkg.core.timer")
    renamed |= {"core/clock.py": None, "core/timer.py": PACKAGE["core/clock.py"]}
    assert package.digest("pkg.core.timer", renamed) != package.digest("pkg.core.clock")


def test_a_package_counts_when_its_init_has_code(package: Package) -> None:
    changes: dict[str, str | None] = {"core/__init__.py": "from pkg.train import unused\n"}
    assert package.files("pkg.core.machine", {}) == ["core/machine.py"]
    assert package.files("pkg.core.machine", changes) == ["core/__init__.py", "core/machine.py", "train/unused.py"]
    assert package.files("pkg.core", changes) == ["core/__init__.py", "train/unused.py"]


def test_relative_imports_of_an_init_start_at_its_own_package(package: Package) -> None:
    changes: dict[str, str | None] = {"train/__init__.py": "from .unused import UNUSED\n"}
    assert package.files("pkg.train", changes) == ["train/__init__.py", "train/unused.py"]


def test_data_files_count_with_the_modules_of_their_folder(package: Package) -> None:
    data: dict[str, str | None] = {
        "train/templates/chat.jinja": "{{ messages }}",
        "train/notes.md": "Notes.",
        "train/deep/__init__.py": "",
        "train/deep/words.json": "[]",
        "train/deep/filter.py": "",
        "_shipped/conf/train.yaml": "rate: 0.1",
    }
    assert package.files("pkg.train.unused", data) == ["train/templates/chat.jinja", "train/unused.py"]
    assert package.files("pkg.train.deep.filter", data) == ["train/deep/filter.py", "train/deep/words.json"]
    assert package.files("pkg.facade", data) == ["facade.py"]
    changed = data | {"train/templates/chat.jinja": "{{ message }}"}
    assert package.digest(changes=changed) != package.digest(changes=data)
    assert package.digest("pkg.core.clock", changed) == package.digest("pkg.core.clock", data)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("pkg.train.fits", r"no module 'pkg.train.fits'. Did you mean 'pkg.train.fit'\?"),
        ("pkg.train.fit:fitt", r"pkg.train.fit does not define 'fitt'. Did you mean 'fit'\?"),
        ("pkg.train.fit:cores", "pkg.train.fit does not define 'cores'"),
        ("pkg.train", "the package 'pkg.train' has no code of its own"),
        ("pkg", "no module 'pkg'"),
    ],
)
def test_an_unknown_entry_is_an_error_that_names_the_nearest(package: Package, entry: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        package.digest(entry)


def test_a_syntax_error_is_reported_with_its_path(package: Package) -> None:
    root = package.write({"train/steps.py": "STEPS = 10\nSTEPS = = 11\n"})
    with pytest.raises(SyntaxError) as caught:
        code_digest("pkg.train.fit", root=root)
    assert str(caught.value) == f"{root / 'train/steps.py'}, line 2: invalid syntax"


def test_modules_are_read_and_not_run(package: Package) -> None:
    assert package.digest("pkg.core.clock", {"core/clock.py": "raise SystemExit(1)\n"})


def test_an_unchanged_file_is_parsed_once(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    root = package.write({})
    parsed: list[bytes] = []
    parse = ast.parse

    def counted(source: bytes) -> ast.Module:
        parsed.append(source)
        return parse(source)

    monkeypatch.setattr(ast, "parse", counted)
    first = code_digest("pkg.train.fit:fit", root=root)
    assert len(parsed) == len(FIT) + 2  # and the empty __init__.py of both packages
    assert code_digest("pkg.train.fit:fit", root=root) == first
    assert len(parsed) == len(FIT) + 2
    (root / "train/steps.py").write_text("STEPS = 1000\n")
    assert code_digest("pkg.train.fit:fit", root=root) != first
    assert len(parsed) == len(FIT) + 3


IMPORTS = {
    "plain": "import pkg.{0}.{1}",
    "from package": "from pkg.{0} import {1}",
    "from module": "from pkg.{0}.{1} import VALUE",
    "relative": "from ..{0}.{1} import VALUE",
    "in a function": "def load():\n    from ..{0} import {1}",
    "table": "TABLE = {{'late': 'pkg.{0}.{1}:VALUE'}}",
}
COUNT = 6


@given(
    edges=st.dictionaries(
        st.tuples(st.integers(0, COUNT - 1), st.integers(0, COUNT - 1)), st.sampled_from(sorted(IMPORTS)), max_size=9
    ),
    entry=st.integers(0, COUNT - 1),
    changed=st.integers(0, COUNT - 1),
)
def test_the_digest_changes_if_and_only_if_the_changed_module_is_reachable(
    edges: dict[tuple[int, int], str], entry: int, changed: int
) -> None:
    reachable = {entry}
    for _ in range(COUNT):
        reachable |= {target for source, target in edges if source in reachable}

    def digest(folder: str, values: list[int]) -> str:
        root = Path(folder, "pkg")
        for number, value in enumerate(values):
            module = root / f"room{number % 2}" / f"m{number}.py"
            module.parent.mkdir(parents=True, exist_ok=True)
            imports = [
                IMPORTS[way].format(f"room{target % 2}", f"m{target}")
                for (source, target), way in edges.items()
                if source == number
            ]
            module.write_text("\n".join([*imports, f"VALUE = {value}\n"]))
        files = {int(path.stem[1:]) for path in code_files(f"pkg.room{entry % 2}.m{entry}", root=root)}
        assert files == reachable
        return code_digest(f"pkg.room{entry % 2}.m{entry}", root=root)

    with tempfile.TemporaryDirectory() as before, tempfile.TemporaryDirectory() as after:
        values = [0] * COUNT
        first = digest(before, values)
        values[changed] = 1
        assert (digest(after, values) != first) == (changed in reachable)


def test_paired_statistics_depend_on_statistics_alone() -> None:
    files = code_files("harness.stats.paired")
    assert "paired.py" in {path.name for path in files}
    assert {path.parent.name for path in files} == {"stats"}


def test_training_depends_on_its_worker_and_on_templates_and_not_on_reports() -> None:
    files = code_files("harness.train.finetune:finetune")
    assert {"worker.py", "chatml.jinja", "fsdp.yaml"} <= {path.name for path in files}
    assert "report" not in {path.parent.name for path in files}
