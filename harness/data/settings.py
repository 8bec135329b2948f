"""The audit's settings that belong to its parts: checked with the rest of the configuration, before any work."""

from collections.abc import Iterable
from importlib import import_module
from typing import Any

from harness.config import AuditConfig, Group, validate
from harness.data.filters.judgement import Filter
from harness.data.filters.registry import FILTERS, config_class, make_filter
from harness.errors import ConfigError, nearest

SECTIONS = {
    "dedupe": "harness.data.minhash:DedupeConfig",
    "decontaminate": "harness.data.decontaminate:DecontaminateConfig",
}
GLOBAL_CODES = ("contamination", "duplicate", "malformed")


def section(name: str, values: dict[str, Any]) -> Any:
    """The typed settings of `dedupe` or `decontaminate`; raises ConfigError that lists every fault."""
    module, attribute = SECTIONS[name].split(":")
    found: type[Group] = getattr(import_module(module), attribute)
    return validate(found, values)


def filters_of(config: AuditConfig) -> list[Filter]:
    """The configured filters in the table's order, one for every behaviour; raises ConfigError with every fault."""
    return [make_filter(name, values) for name, values in _wanted(config)]


def faults(audit: Any) -> list[str]:
    """Every fault in the settings of the audit's parts, each with its key. `audit` are the group's plain values."""
    if not isinstance(audit, dict):
        return []
    found: list[str] = []
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
