"""A default stands in one place: the class. An option file states only what differs from it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter
from pydantic_core import PydanticUndefined

from harness.config.experiment import Config, read_yaml
from harness.config.group import Group
from harness.core import resources
from harness.core.store import sha256_json
from harness.data.settings import FILTERS, SECTIONS, config_class, section
from harness.workflows.compose import gate_values, groups

# A policy is read alone, as evidence: it names its error rates and the roles it demands even where they are usual.
STATED = {"gate.alpha_pass", "gate.alpha_fail", "gate.power", "gate.require"}
TYPED = [group for group in groups() if group != "experiment"]  # an experiment overrides options, whatever they say


def options(group: str) -> list[Path]:
    return sorted((resources.CONF / group).glob("*.yaml"))


def class_of(group: str) -> type[Group]:
    found = Config.model_fields[group].annotation
    assert isinstance(found, type)
    assert issubclass(found, Group)
    return found


def plain(value: Any) -> Any:
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.model_dump() if isinstance(value, BaseModel) else value


def restated(given: Mapping[str, Any], built: BaseModel, key: str) -> Iterator[str]:
    """Keys of `given` that are the defaults of the classes which `built` was validated into."""
    for name, value in given.items():
        field, made = type(built).model_fields[name], getattr(built, name)
        default = field.get_default(call_default_factory=True)
        if default is not PydanticUndefined and plain(made) == plain(default):
            yield f"{key}.{name}".lstrip(".")
        elif isinstance(made, BaseModel) and isinstance(value, dict):
            yield from restated(value, made, f"{key}.{name}")
        elif isinstance(made, dict | list):
            inner = zip(value.items(), made.values(), strict=True) if isinstance(made, dict) else None
            pairs = inner or zip(enumerate(value), made, strict=True)
            for (place, part), typed in pairs:
                if isinstance(typed, BaseModel) and isinstance(part, dict):
                    yield from restated(part, typed, f"{key}.{name}.{place}")


@pytest.mark.parametrize("group", TYPED)
def test_no_option_restates_a_default(group: str) -> None:
    for path in options(group):
        values = read_yaml(path) or {}
        extends = values.pop("defaults", None)  # a policy that extends another one states only what differs
        built = class_of(group)(**(gate_values(path.stem) if extends else values))
        doubles = set(restated(values, built, group)) - STATED
        assert not doubles, f"{path.name} restates the class's default: {', '.join(sorted(doubles))}"


def test_the_root_file_restates_no_default() -> None:
    values = {key: value for key, value in read_yaml(resources.CONF / "config.yaml").items() if key != "defaults"}
    assert not set(restated(values, Config.model_construct(**values), ""))


@pytest.mark.parametrize("group", TYPED)
def test_every_default_is_used_by_an_option(group: str) -> None:
    """A default that every shipped option replaces is a second truth; an empty list or dictionary is none."""
    given = [set(read_yaml(path) or {}) for path in options(group)]
    fields = class_of(group).model_fields.items()
    scalar = {name for name, field in fields if not isinstance(field.default, list | dict) and not field.is_required()}
    assert not {f"{group}.{name}" for name in scalar.intersection(*given)} - STATED


def all_groups(base: type[Group] = Group) -> set[type[Group]]:
    for name in FILTERS:
        config_class(name)
    for name in SECTIONS:
        section(name, {})
    return {base, *(found for subclass in base.__subclasses__() for found in all_groups(subclass))} - {Group}


@pytest.mark.parametrize("group", sorted(all_groups(), key=str))
def test_a_default_is_what_stating_it_gives(group: type[Group]) -> None:
    """2 and 2.0 make two run ids: a default has the type that validation would give it."""
    for name, field in group.model_fields.items():
        if not field.is_required():
            kind: Any = field.annotation
            stated = TypeAdapter(kind).validate_python(plain(field.get_default()))
            assert sha256_json(plain(stated)) == sha256_json(plain(field.get_default())), name
