"""The audit's settings that belong to its parts: checked with the rest of the configuration, before any work."""

from collections.abc import Iterable
from importlib import import_module
from typing import Any, get_args

from harness.config.data import AuditConfig, DataConfig
from harness.config.experiment import validate
from harness.config.group import Group
from harness.core.errors import ConfigError, nearest
from harness.data.filters.protocol import Filter

# The filters by name: a static table, so that a configuration can name them and a test can resolve them all.


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


SECTIONS = {
    "dedupe": "harness.data.dedupe:DedupeConfig",
    "decontaminate": "harness.data.decontaminate:DecontaminateConfig",
    "licences": "harness.data.licences:LicencePolicy",
    "outliers": "harness.data.staging:OutlierConfig",
    "patterns": "harness.data.patterns:PatternConfig",
}
GLOBAL_CODES = ("contamination", "duplicate", "outlier", "malformed")


def section(name: str, values: dict[str, Any]) -> Any:
    """The typed settings of a part in SECTIONS; raises ConfigError that lists every fault."""
    module, attribute = SECTIONS[name].split(":")
    found: type[Group] = getattr(import_module(module), attribute)
    return validate(found, values)


def filters_of(config: AuditConfig, data: DataConfig) -> list[Filter]:
    """The configured filters in the table's order, one for every behaviour; raises ConfigError with every fault.

    A filter masks as soon as one source wants it to; what is done with a finding is decided by `action_of`.
    """
    masking = {
        name for source in data.sources.values() for name, action in source.actions.items() if action == "redact"
    }
    redact = {"action": "redact"}
    return [make_filter(name, {**values, **(redact if name in masking else {})}) for name, values in _wanted(config)]


def faults(audit: Any, data: Any) -> list[str]:
    """Every fault in the settings of the audit's parts, each with its key; from the plain values of both groups."""
    found = _wrong_actions(data)
    if not isinstance(audit, dict):
        return found
    for name in SECTIONS:
        found += _told(f"audit.{name}", lambda name=name: section(name, audit.get(name) or {}))
    filters = audit.get("filters")
    for name, values in (filters if isinstance(filters, dict) else {}).items():
        if name not in FILTERS:
            found.append(f"audit.filters.{name}: unknown filter. {nearest(name, FILTERS)}")
        elif isinstance(values, dict):
            given = {"name": "", **values} if name == "behavior" else values
            found += _told(f"audit.filters.{name}", lambda n=name, v=given: validate(config_class(n), v))
    return found + _unknown_codes(audit.get("limits"))


def action_of(name: str, config: AuditConfig) -> str:
    """What the filter of that table name does to a row it found: drop, redact or flag."""
    values = config.filters.get(name) or {}
    default = config_class(name).model_fields["action"].default
    return str(values.get("action", default))


def _wanted(config: AuditConfig) -> Iterable[tuple[str, dict[str, Any]]]:
    for name in FILTERS:
        values = config.filters.get(name)
        if name == "behavior":
            for rule in config.rules:
                yield name, {**(values or {}), **rule.model_dump()}
        elif values is not None:
            yield name, values


def _wrong_actions(data: Any) -> list[str]:
    """Sources that ask a filter for what it cannot do."""
    sources = data.get("sources") if isinstance(data, dict) else None
    asked = [
        (f"data.sources.{source}.actions.{name}", name, action)
        for source, values in (sources if isinstance(sources, dict) else {}).items()
        for name, action in ((values.get("actions") or {}) if isinstance(values, dict) else {}).items()
    ]
    found = [f"{key}: unknown filter. {nearest(str(name), FILTERS)}" for key, name, _ in asked if name not in FILTERS]
    for key, name, action in asked:
        can = get_args(config_class(name).model_fields["action"].annotation) if name in FILTERS else ()
        if can and action not in can:
            found.append(f"{key}: {name} cannot {action}; it can {', '.join(can)}")
    return found


def _unknown_codes(limits: Any) -> list[str]:
    codes = [*FILTERS, *GLOBAL_CODES]
    named = [
        (kind, str(code))
        for kind in ("max_rows", "max_share")
        for code in (limits.get(kind) or {} if isinstance(limits, dict) else {})
    ]
    return [
        f"audit.limits.{kind}.{code}: unknown reason code. {nearest(code, codes)}"
        for kind, code in named
        if code.split(" ")[0] not in codes
    ]


def _told(prefix: str, make: Any) -> list[str]:
    try:
        make()
    except ConfigError as error:
        return [f"{prefix}.{fault}" for fault in error.faults]
    return []
