"""Settings without secrets, before they leave this machine or reach a log."""

import os
import re
from collections.abc import Mapping

REMOVED = "[removed]"

# `max_new_tokens` and `special_tokens` are settings, `hub_token` is not: only whole words count, in the singular.
_SECRET_WORDS = {
    "apikey", "auth", "authorization", "bearer", "cookie", "credential", "credentials", "key", "netrc", "passphrase",
    "passwd", "password", "pat", "secret", "secrets", "token",
}  # fmt: skip
_SECRET_VALUE = re.compile(
    r"\b(?:hf_|sk-|gh[opsu]_|github_pat_|glpat-|wandb_v\d_|xox[abp]-|AKIA|eyJ)[\w.-]{8,}"
    r"|\bBearer\s+\S+|-----BEGIN [A-Z ]*PRIVATE KEY-----|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"
)
_SHORTEST_SECRET = 8


def without_secrets(settings: Mapping[str, object]) -> dict[str, object]:
    """`settings`, nested as it is, with "[removed]" for secrets.

    A secret is a value whose name says so, text that has the form of a known key, and the value of an
    environment variable whose name says so.
    """
    known = [value for name, value in os.environ.items() if _secret_name(name) and len(value) >= _SHORTEST_SECRET]
    return {str(name): _clean(str(name), value, known) for name, value in settings.items()}


def _clean(name: str, value: object, known: list[str]) -> object:
    if isinstance(value, Mapping):
        return {str(key): _clean(str(key), inner, known) for key, inner in value.items()}
    if _secret_name(name) and value not in (None, ""):
        return REMOVED
    if isinstance(value, list | tuple):
        return [_clean("", inner, known) for inner in value]
    if not isinstance(value, str):
        return value
    for secret in known:
        value = value.replace(secret, REMOVED)
    return _SECRET_VALUE.sub(REMOVED, value)


def _secret_name(name: str) -> bool:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return not _SECRET_WORDS.isdisjoint(re.split(r"[^a-z0-9]+", words))
