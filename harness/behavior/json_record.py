"""The kind `json_record`: one JSON object, valid under the topic's JSON Schema, and nothing else."""

import json
import math
import re
import unicodedata
from typing import Annotated, Any

from pydantic import AfterValidator

from harness.behavior.config import BehaviorConfig
from harness.behavior.exchange import Check, Exchange, RuleFinding, topic_errors

_FENCED = re.compile(r"\A```json[ \t]*\r?\n(.*?)\s*```\Z", re.DOTALL | re.IGNORECASE)
_JSON_FENCE = re.compile(r"```json[ \t]*\r?\n(.*?)```", re.DOTALL | re.IGNORECASE)
_OBJECT = re.compile(r"\{[^{}]*\}")


def _valid_schema(schema: dict[str, Any]) -> dict[str, Any]:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError
    from referencing.exceptions import Unresolvable

    try:
        Draft202012Validator.check_schema(schema)
        list(Draft202012Validator(schema).iter_errors({}))
    except Unresolvable as error:
        raise ValueError(f"not a valid JSON Schema: {error}") from None
    except SchemaError as error:
        where = "/".join(map(str, error.absolute_path)) or "the schema"
        raise ValueError(f"not a valid JSON Schema: {where}: {error.message}") from None
    return schema


Schema = Annotated[dict[str, Any], AfterValidator(_valid_schema)]


class JsonRecordConfig(BehaviorConfig):
    """The records that are demanded."""

    schemas: dict[str, Schema]
    """A JSON Schema (draft 2020-12) for each topic that asks for a record."""


class JsonRecord:
    def __init__(self, config: JsonRecordConfig):
        self.config = config

    def check(self, exchange: Exchange) -> Check:
        """`valid` is 1 for a valid object and nothing else. `field_accuracy` is the share of correct fields, 0 without
        an object; `exact` is 1 when all fields of a valid object are correct.
        """
        schema = self.config.schemas.get(exchange.topic)
        if schema is None:
            return Check([])
        record, error = only_object(exchange.response)
        findings = [
            RuleFinding("only_json", error is None, "one JSON object and nothing else", error or "one JSON object")
        ]
        broken = errors_of(record, schema) if record is not None else ["no object to check"]
        findings.append(RuleFinding("schema", not broken, f"valid as {exchange.topic}", "; ".join(broken) or "valid"))
        metrics = {"valid": float(all(finding.passed for finding in findings))}
        if exchange.details.get("record"):
            right = json.loads(exchange.details["record"])
            wrong = [key for key in right if record is None or not _equal(record.get(key, _ABSENT), right[key])]
            shown = "; ".join(f"{key}: {_shown(record, key)}" for key in wrong)
            wanted = "; ".join(f"{key}: {json.dumps(right[key], ensure_ascii=False)}" for key in wrong or right)
            findings.append(RuleFinding("fields", not wrong, wanted, shown or "the same values"))
            metrics["field_accuracy"] = 1 - len(wrong) / len(right)
            metrics["exact"] = float(all(finding.passed for finding in findings))
        return Check(findings, metrics)

    def without(self, text: str) -> str:
        return text

    def leaked(self, text: str) -> str | None:
        """A JSON object that is the whole answer or fenced as JSON, or one with two keys of the same schema."""
        candidates = [text, *(match[1] for match in _JSON_FENCE.finditer(text))]
        alone = (" ".join(candidate.split())[:80] for candidate in candidates if only_object(candidate)[0] is not None)
        return next(alone, None) or self._schema_keys(text)

    def _schema_keys(self, text: str) -> str | None:
        known = [set(schema.get("properties", {})) for schema in self.config.schemas.values()]
        for match in _OBJECT.finditer(text):
            keys = set(re.findall(r'"([^"\n]+)"\s*:', match[0]))
            if any(len(keys & names) > 1 for names in known):
                return " ".join(match[0].split())[:80]
        return None

    def item_errors(self, item: Exchange) -> list[str]:
        schema = self.config.schemas.get(item.topic)
        if schema is None:
            return topic_errors(item, self.config.schemas)
        record, error = only_object(str(item.details.get("record") or ""))
        if record is None:
            return [f"details.record: {error}"]
        if not record:
            return ["details.record has no fields, so there is nothing to compare"]
        return [f"details.record: {broken}" for broken in errors_of(record, schema)]


def only_object(text: str) -> tuple[dict[str, Any] | None, str | None]:
    """The JSON object that is the whole text, or None and what is wrong. One ```json fence is allowed."""
    stripped = text.strip()
    fenced = _FENCED.match(stripped)
    try:
        value = _parsed(fenced[1] if fenced else stripped)
    except (ValueError, RecursionError) as error:
        return None, f"not JSON, or not only JSON: {error}" if stripped else "nothing"
    if not isinstance(value, dict):
        return None, f"a JSON {type(value).__name__}, not an object"
    return value, None


def _parsed(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_distinct, parse_constant=_no_number, parse_float=_finite)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ValueError(f"a key occurs twice: {', '.join(twice)}")
    return dict(pairs)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not a JSON number")


def _finite(text: str) -> float:
    return value if math.isfinite(value := float(text)) else _no_number(text)


def errors_of(record: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    """What makes a record invalid under a schema, in jsonschema's words. Formats such as dates are checked."""
    from jsonschema import Draft202012Validator

    validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    errors = sorted(validator.iter_errors(record), key=lambda error: [str(part) for part in error.absolute_path])
    return [": ".join([*map(str, error.absolute_path), error.message]) for error in errors]


_ABSENT = object()


def _equal(given: Any, right: Any) -> bool:
    """Whether values and their types are equal. Strings may differ in case and white space."""
    if isinstance(given, str) and isinstance(right, str):
        return _plain(given) == _plain(right)
    if isinstance(given, bool) or isinstance(right, bool):
        return given is right
    return bool(given == right)


def _plain(text: str) -> str:
    return "".join(unicodedata.normalize("NFC", text).casefold().split())


def _shown(record: dict[str, Any] | None, key: str) -> str:
    if record is None or key not in record:
        return "missing"
    return json.dumps(record[key], ensure_ascii=False, default=str)
