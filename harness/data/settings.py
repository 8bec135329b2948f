"""The settings of the audit's filters and stages, checked together with the configuration before any work."""

from collections.abc import Iterable
from typing import Any, get_args

from harness.config.data import AuditConfig, DataConfig
from harness.config.experiment import validate
from harness.config.group import Group
from harness.core import plugins
from harness.core.errors import ConfigError, nearest
from harness.data.filters.protocol import Filter

# The shipped filters by name. Installed packages add others (entry points tuning_harness.filters).
FILTERS = {
    "personal_data": "harness.data.filters.personal_data:PersonalData",
    "toxicity": "harness.data.filters.toxicity:Toxicity",
    "legal": "harness.data.filters.legal:Legal",
    "behavior": "harness.data.filters.behavior:BehaviorConflict",
    "quality": "harness.data.filters.quality:Quality",
}
GLOBAL_CODES = ("contamination", "paraphrase", "duplicate", "outlier", "malformed")
ACTIONS = ("drop", "redact", "flag")


def filter_names() -> list[str]:
    """The names of all filters, shipped or installed, sorted."""
    return plugins.names("filters", FILTERS)


def filter_class(name: str) -> Any:
    """The class of a filter.

    Raises ConfigError for an unknown name, and EnvironmentFault for an installed filter that cannot be used.
    """
    if name not in filter_names():
        raise ConfigError([f"audit.filters.{name}: unknown filter. {nearest(name, filter_names())}"])
    found = plugins.load("filters", name, FILTERS, Filter)
    if name in (*GLOBAL_CODES, "mix"):
        raise plugins.refusal("filters", name, f"{name!r} is a reason code of the audit itself; rename the filter")
    return found


def config_class(name: str) -> type[Group]:
    """The configuration class of a filter. Raises what `filter_class` raises."""
    found = plugins.settings_class("filters", name, filter_class(name), Group)
    action = found.model_fields.get("action")
    can = get_args(action.annotation) if action else ()
    if action is None or action.default not in can or not set(can) <= set(ACTIONS):
        wanted = f"action: Literal[…] of {', '.join(ACTIONS)}, with a default"
        raise plugins.refusal("filters", name, f"{found.__name__} needs the field {wanted}")
    return found


def make_filter(name: str, values: dict[str, Any]) -> Filter:
    """The filter with these settings. Raises ConfigError that lists every error in them."""
    made: Filter = plugins.built("filters", name, filter_class(name), validate(config_class(name), values))
    code = str(getattr(made, "code", None))
    if code.split(" ")[0] != name:
        raise plugins.refusal("filters", name, f"its attribute 'code' is {code!r}; it must be {name!r}")
    return made


SECTIONS = {
    "dedupe": "harness.data.dedupe:DedupeConfig",
    "decontaminate": "harness.data.decontaminate:DecontaminateConfig",
    "semantic": "harness.data.semantic:SemanticConfig",
    "licences": "harness.data.licences:LicencePolicy",
    "outliers": "harness.data.staging:OutlierConfig",
    "patterns": "harness.data.patterns:PatternConfig",
}


def section(name: str, values: dict[str, Any]) -> Any:
    """The typed settings of a part named in SECTIONS. Raises ConfigError that lists every error in them."""
    found: type[Group] = plugins.resolve(SECTIONS[name])
    return validate(found, values)


def filters_of(config: AuditConfig, data: DataConfig) -> list[Filter]:
    """The configured filters: the shipped ones in the order of FILTERS with one for each behaviour, then the installed
    ones by name. Raises ConfigError with every error in their settings.

    A filter masks if any source wants it to. The FilterChain decides what is done with each finding.
    """
    masking = {
        name for source in data.sources.values() for name, action in source.actions.items() if action == "redact"
    }
    redact = {"action": "redact"}
    return [make_filter(name, {**values, **(redact if name in masking else {})}) for name, values in _wanted(config)]


def setting_errors(audit: Any, data: Any) -> list[str]:
    """Every error in the settings of the audit's parts, each with its key. Takes the plain values of both groups."""
    found = _wrong_actions(data)
    if not isinstance(audit, dict):
        return found
    for name in SECTIONS:
        found += _errors_of(f"audit.{name}", lambda name=name: section(name, audit.get(name) or {}))
    filters = audit.get("filters")
    for name, values in (filters if isinstance(filters, dict) else {}).items():
        if name not in filter_names():
            found.append(f"audit.filters.{name}: unknown filter. {nearest(name, filter_names())}")
        elif isinstance(values, dict):
            given = {"name": "", **values} if name == "behavior" else values
            found += _errors_of(f"audit.filters.{name}", lambda n=name, v=given: validate(config_class(n), v))
    return found + _unknown_codes(audit.get("limits"))


def action_of(name: str, config: AuditConfig) -> str:
    """What happens to the rows that a filter finds: drop, redact or flag."""
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
    """Actions of sources that their filter does not have."""
    sources = data.get("sources") if isinstance(data, dict) else None
    wanted = [
        (f"data.sources.{source}.actions.{name}", name, action)
        for source, values in (sources if isinstance(sources, dict) else {}).items()
        for name, action in ((values.get("actions") or {}) if isinstance(values, dict) else {}).items()
    ]
    known = filter_names()
    found = [f"{key}: unknown filter. {nearest(str(name), known)}" for key, name, _ in wanted if name not in known]
    for key, name, action in wanted:
        can = get_args(config_class(name).model_fields["action"].annotation) if name in known else ()
        if can and action not in can:
            found.append(f"{key}: the filter {name} cannot {action}; it can {' or '.join(can)}")
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


def _errors_of(prefix: str, make: Any) -> list[str]:
    try:
        make()
    except ConfigError as error:
        return [f"{prefix}.{message}" for message in error.errors]
    return []
