"""The audit's settings that belong to its parts: checked with the rest of the configuration, before any work."""

from collections.abc import Iterable
from typing import Any, get_args

from harness.config.data import AuditConfig, DataConfig
from harness.config.experiment import validate
from harness.config.group import Group
from harness.core import plugins
from harness.core.errors import ConfigError, nearest
from harness.data.filters.protocol import Filter

# The shipped filters by name; installed packages add to them (entry points tuning_harness.filters).
FILTERS = {
    "personal_data": "harness.data.filters.personal_data:PersonalData",
    "toxicity": "harness.data.filters.toxicity:Toxicity",
    "legal": "harness.data.filters.legal:Legal",
    "behavior": "harness.data.filters.behavior:BehaviorConflict",
    "quality": "harness.data.filters.quality:Quality",
}
GLOBAL_CODES = ("contamination", "duplicate", "outlier", "malformed")
ACTIONS = ("drop", "redact", "flag")


def filter_names() -> list[str]:
    """Every filter that a configuration can name, shipped or installed, sorted."""
    return plugins.names("filters", FILTERS)


def filter_class(name: str) -> Any:
    """The class of a filter. Raises ConfigError when there is none of that name, and EnvironmentFault for one of an
    installed package that cannot be used."""
    if name not in filter_names():
        raise ConfigError([f"audit.filters.{name}: unknown filter. {nearest(name, filter_names())}"])
    found = plugins.load("filters", name, FILTERS, Filter)
    if name in (*GLOBAL_CODES, "mix"):
        raise plugins.refusal("filters", name, f"the audit itself counts rows as {name!r}; it needs another name")
    return found


def config_class(name: str) -> type[Group]:
    """The configuration class of a filter. Raises what `filter_class` raises."""
    found = plugins.settings_class("filters", name, filter_class(name), Group)
    action = found.model_fields.get("action")
    can = get_args(action.annotation) if action else ()
    if action is None or action.default not in can or not set(can) <= set(ACTIONS):
        wanted = f"action: Literal[…] of {', '.join(ACTIONS)}, with a default"
        raise plugins.refusal("filters", name, f"{found.__name__} needs a field {wanted}")
    return found


def make_filter(name: str, values: dict[str, Any]) -> Filter:
    """The filter built from its configuration; raises ConfigError that lists every fault."""
    made: Filter = plugins.built("filters", name, filter_class(name), validate(config_class(name), values))
    code = str(getattr(made, "code", None))
    if code.split(" ")[0] != name:
        raise plugins.refusal("filters", name, f"its attribute 'code' is {code!r}; it has to be {name!r}")
    return made


SECTIONS = {
    "dedupe": "harness.data.dedupe:DedupeConfig",
    "decontaminate": "harness.data.decontaminate:DecontaminateConfig",
    "licences": "harness.data.licences:LicencePolicy",
    "outliers": "harness.data.staging:OutlierConfig",
    "patterns": "harness.data.patterns:PatternConfig",
}


def section(name: str, values: dict[str, Any]) -> Any:
    """The typed settings of a part in SECTIONS; raises ConfigError that lists every fault."""
    found: type[Group] = plugins.resolve(SECTIONS[name])
    return validate(found, values)


def filters_of(config: AuditConfig, data: DataConfig) -> list[Filter]:
    """The configured filters: shipped ones in the table's order, one for every behaviour, then those of installed
    packages by name. Raises ConfigError with every fault.

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
        if name not in filter_names():
            found.append(f"audit.filters.{name}: unknown filter. {nearest(name, filter_names())}")
        elif isinstance(values, dict):
            given = {"name": "", **values} if name == "behavior" else values
            found += _told(f"audit.filters.{name}", lambda n=name, v=given: validate(config_class(n), v))
    return found + _unknown_codes(audit.get("limits"))


def action_of(name: str, config: AuditConfig) -> str:
    """What the filter of that name does to a row it found: drop, redact or flag."""
    values = config.filters.get(name) or {}
    default = config_class(name).model_fields["action"].default
    return str(values.get("action", default))


def _wanted(config: AuditConfig) -> Iterable[tuple[str, dict[str, Any]]]:
    for name in [*FILTERS, *sorted(set(config.filters) - set(FILTERS))]:
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
    known = filter_names()
    found = [f"{key}: unknown filter. {nearest(str(name), known)}" for key, name, _ in asked if name not in known]
    for key, name, action in asked:
        can = get_args(config_class(name).model_fields["action"].annotation) if name in known else ()
        if can and action not in can:
            found.append(f"{key}: {name} cannot {action}; it can {', '.join(can)}")
    return found


def _unknown_codes(limits: Any) -> list[str]:
    codes = [*filter_names(), *GLOBAL_CODES]
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
        return [f"{prefix}.{fault}" for fault in error.errors]
    return []
