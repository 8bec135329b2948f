"""Errors: the drawn tree is the true one, each leaf keeps its message and exit code, and other libraries' are ours."""

import ast
import errno
import pickle
import re
import sqlite3
from pathlib import Path
from pkgutil import resolve_name

import pytest
from safetensors import SafetensorError

from harness.core import errors
from harness.core.errors import (
    DataError,
    DiskFull,
    EnvironmentFault,
    ExitCode,
    NetworkFault,
    OutOfMemory,
    TemplateRefusal,
)
from harness.core.translate import TABLE, kind_of, translated

MADE = {
    "ConfigError": (["a: wrong", "b: missing"],),
    "MissingDependency": ("ray", "audit.engine=ray", "ray"),
    "LimitsBroken": (["toxicity: 3 rows found"],),
    "PromotionRefused": (["the verdict is FAIL"], 10),
}
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.HarnessError)]
PACKAGE = Path(errors.__file__).parents[1]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_survives_the_way_between_processes(kind: type[errors.HarnessError]) -> None:
    error = kind(*MADE.get(kind.__name__, ("what, where, how to fix it",)))
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
    assert (again.exit_code, vars(again)) == (error.exit_code, vars(error))


def drawn() -> dict[str, tuple[str | None, int]]:
    """Parent and exit code of each class in the drawing."""
    path: list[str] = []
    found: dict[str, tuple[str | None, int]] = {}
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"^([│├└─ ]*)([A-Z]\w+) +(\d+)   \S", line):
            depth = len(match[1]) // 4
            path[depth:] = [match[2]]
            found[match[2]] = path[depth - 1] if depth else None, int(match[3])
    return found


def test_the_drawn_tree_has_every_class_of_the_package_where_it_belongs() -> None:
    tree = drawn()
    defined: dict[str, list[str]] = {}
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                defined[node.name] = [ast.unparse(base).rpartition(".")[2] for base in node.bases]
    ours = {"HarnessError"}
    while more := {name for name, bases in defined.items() if ours & set(bases)} - ours:
        ours |= more
    ours = {name for name in ours if not name.startswith("_")}
    assert set(tree) == ours
    assert {name: parent for name, (parent, _) in tree.items() if parent} == {
        name: defined[name][0] for name in ours - {"HarnessError"}
    }


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_drawn_tree_has_the_exit_codes(kind: type[errors.HarnessError]) -> None:
    assert drawn()[kind.__name__][1] == kind.exit_code


@pytest.mark.parametrize(
    ("codes", "gravest"),
    [
        ([], 0),
        ([0, 0], 0),
        ([0, 11, 10], 10),
        ([10, 12], 12),
        ([12, 3, 11], 3),
        ([3, 2], 2),
        ([2, 1, 12], 1),
        ([0, 77], 1),
    ],
)
def test_many_jobs_end_with_the_gravest_code(codes: list[int], gravest: int) -> None:
    assert ExitCode.gravest(codes) == gravest


EXAMPLES: list[tuple[Exception, type[errors.HarnessError]]] = [
    (OSError(errno.ENOSPC, "No space left on device"), DiskFull),
    (OSError(errno.EDQUOT, "Disk quota exceeded"), DiskFull),
    (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), DiskFull),
    (Exception("No space left on device (os error 28)"), DiskFull),  # of tokenizers, when it saves
    (sqlite3.OperationalError("database or disk is full"), DiskFull),
    (sqlite3.OperationalError("disk I/O error"), EnvironmentFault),
    (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"), DiskFull),
    (MemoryError(), OutOfMemory),
    (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), OutOfMemory),
    (SafetensorError("Error while deserializing header: header too large"), DataError),
    (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), NetworkFault),
    (TimeoutError("timed out"), NetworkFault),
    (ModuleNotFoundError("No module named 'torch'"), errors.EnvironmentFault),
]


@pytest.mark.parametrize(("error", "kind"), EXAMPLES, ids=[str(error)[:40] for error, _ in EXAMPLES])
def test_errors_of_other_libraries_become_ours(error: Exception, kind: type[errors.HarnessError]) -> None:
    with (
        pytest.raises(errors.HarnessError, match=re.escape(str(error)[:40] or "MemoryError")) as caught,
        translated("load m", DataError, "m"),
    ):
        raise error
    assert type(caught.value) is kind


NAMED = sorted({name for rule in TABLE for name in rule.classes if not name.endswith(".")})


@pytest.mark.parametrize("name", NAMED)
def test_every_class_of_the_table_exists(name: str) -> None:
    """A library that renames one of its errors would otherwise take it out of the table unseen."""
    pytest.importorskip(name.rpartition(".")[0])
    kind = resolve_name(name)
    assert issubclass(kind, Exception)
    for rule in [rule for rule in TABLE if name in rule.classes]:
        for sign in rule.signs or [""]:
            error = kind.__new__(kind, sign)
            if isinstance(sign, int):
                error.errno = sign
            assert rule.fits(error)


@pytest.mark.parametrize("module", ["huggingface_hub.errors", "httpx", "httpcore"])
def test_every_error_of_these_libraries_is_mapped(module: str) -> None:
    library = pytest.importorskip(module)
    kinds = [kind for kind in vars(library).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    own = [kind for kind in kinds if kind.__module__.partition(".")[0] == module.partition(".")[0]]
    assert len(own) > 5
    unmapped = [kind.__name__ for kind in own if kind_of(kind.__new__(kind)) not in (NetworkFault, DataError)]
    assert unmapped == []


def test_an_ambiguous_error_is_what_the_caller_says_it_is() -> None:
    with pytest.raises(DataError) as caught, translated("read f", DataError, "f is damaged", "Make it again."):
        raise KeyError("r")
    assert str(caught.value) == "f is damaged (KeyError 'r'). Make it again."
    with (
        pytest.raises(NetworkFault, match=r"^m cannot be fetched \(no such file\)$"),
        translated("fetch m", NetworkFault, "m cannot be fetched"),
    ):
        raise FileNotFoundError("no such file")
    with (
        pytest.raises(OutOfMemory, match=r"^cannot read f: MemoryError$"),
        translated("read f", DataError, "f is damaged"),
    ):
        raise MemoryError


def test_our_errors_and_defects_pass_as_they_are() -> None:
    with pytest.raises(TemplateRefusal, match=r"^no system message$"), translated("read f", DataError, "f is damaged"):
        raise TemplateRefusal("no system message")
    with pytest.raises(ZeroDivisionError), translated("read f", DataError, "f is damaged"):
        raise ZeroDivisionError
    with pytest.raises(KeyboardInterrupt), translated("read f", DataError, "f is damaged"):
        raise KeyboardInterrupt
