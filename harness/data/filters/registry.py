"""The filters by name: a static table, so that a configuration can name them and a test can resolve them all."""

from importlib import import_module
from typing import Any

from harness.config import Group, validate
from harness.data.filters.judgement import Filter
from harness.errors import ConfigError, nearest

FILTERS = {
    "personal_data": "harness.data.filters.personal_data:PersonalData",
    "toxicity": "harness.data.filters.toxicity:Toxicity",
    "legal": "harness.data.filters.legal:Legal",
    "behavior": "harness.data.filters.behavior:BehaviorConflict",
    "quality": "harness.data.filters.quality:Quality",
}


def filter_class(name: str) -> Any:
    """The class of a filter; raises ConfigError when there is none of that name."""
    if name not in FILTERS:
        raise ConfigError([f"audit.filters.{name}: unknown filter. {nearest(name, FILTERS)}"])
    module, attribute = FILTERS[name].split(":")
    return getattr(import_module(module), attribute)


def config_class(name: str) -> type[Group]:
    """The configuration class of a filter: `<Filter>Config` beside it."""
    module, attribute = FILTERS[name].split(":")
    found: type[Group] = getattr(import_module(module), f"{attribute}Config")
    return found


def make_filter(name: str, values: dict[str, Any]) -> Filter:
    """The filter built from its configuration; raises ConfigError that lists every fault."""
    built: Filter = filter_class(name)(validate(config_class(name), values))
    return built
