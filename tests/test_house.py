"""The shape of the package: what the design promises and no other test would notice."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import harness

PACKAGE = Path(harness.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
FILES_OF_A_RUN = re.compile(
    r"(run|compare|verdict|policy|evidence|audit|evaluation|prompt_contract)\.json|config\.yaml|train\.jsonl"
)


def test_the_root_holds_rooms_and_nothing_else() -> None:
    files = {path.name for path in PACKAGE.iterdir() if path.is_file()}
    assert files == {"__init__.py", "py.typed"}


def defined_types() -> Iterator[tuple[str, str]]:
    """Name and module of every class and type alias at the top level of a module."""
    for path in SOURCES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                yield node.name, path.relative_to(PACKAGE).as_posix()
            for target in node.targets if isinstance(node, ast.Assign) else []:
                if isinstance(target, ast.Name) and re.fullmatch(r"[A-Z][a-zA-Z]*[a-z][a-zA-Z]*", target.id):
                    yield target.id, path.relative_to(PACKAGE).as_posix()


def test_a_type_has_one_meaning() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for name, module in defined_types():
        places[name].append(module)
    assert {name: modules for name, modules in places.items() if len(modules) > 1} == {}


def test_the_names_of_a_runs_files_stand_in_one_place() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{node.lineno} {node.value}"
        for path in SOURCES
        if path != PACKAGE / "core" / "layout.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and FILES_OF_A_RUN.fullmatch(node.value)
    ]
    assert found == []


def test_every_room_and_module_says_what_it_is_for() -> None:
    silent = [
        path.relative_to(PACKAGE).as_posix()
        for path in SOURCES
        if path.read_text().strip() and ast.get_docstring(ast.parse(path.read_text())) is None
    ]
    assert silent == []


def test_the_picture_of_the_rooms_is_true() -> None:
    """Every arrow of docs/architecture.md has an import behind it, and no import goes against the picture."""
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text()
    base = {"config", "records", "stats", "core"}
    drawn: dict[str, set[str]] = defaultdict(set)
    for room, below in re.findall(r"^  (\w+) --> ([\w &]+)$", page.split("```")[1], re.MULTILINE):
        drawn[room] |= set(below.split(" & "))
    imported: dict[str, set[str]] = defaultdict(set)
    for path in SOURCES:
        room = path.relative_to(PACKAGE).parts[0]
        for name in re.findall(r"^\s*from harness\.(\w+)", path.read_text(), re.MULTILINE):
            imported["base" if room in base else room].add("base" if name in base else name)
    assert {room: sorted(below - imported[room]) for room, below in drawn.items() if below - imported[room]} == {}

    def reached(room: str) -> set[str]:
        return {room}.union(*map(reached, drawn[room]))

    hidden = {room: sorted(imported[room] - reached(room)) for room in list(drawn) if imported[room] - reached(room)}
    assert hidden == {}
