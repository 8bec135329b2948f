"""Removes secrets from settings and command lines before they are written or leave this machine."""

import os
import re
import shlex
from collections.abc import Mapping

REMOVED = "[removed]"

# Only whole words in the singular count: `hub_token` is a secret, `max_new_tokens` and `special_tokens` are not.
_SECRET_WORDS = {
    "apikey", "auth", "authorization", "bearer", "cookie", "credential", "credentials", "key", "netrc", "passphrase",
    "passwd", "password", "pat", "secret", "secrets", "token",
}  # fmt: skip
_SECRET_VALUE = re.compile(
    r"\b(?:hf_|sk-|gh[opsu]_|github_pat_|glpat-|wandb_v\d_|xox[abp]-|AKIA|eyJ)[\w.-]{8,}"
    r"|\bBearer\s+\S+|-----BEGIN [A-Z ]*PRIVATE KEY-----|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"
)
_SHORTEST_SECRET, _SHORTEST_WORD = 8, 12
_SETTINGS = {"slice_key"}  # not a secret in spite of its name
_INNER_NAME = re.compile(r"""(?<![?&\w.-])([\w.-]+)["']?\s*[=:]""")
_QUERY = re.compile(r"""(?<=[?&])([\w.-]+)=[^&#\s"']+""")


def without_secrets(settings: Mapping[str, object]) -> dict[str, object]:
    """A copy of `settings`, nested as it is, with "[removed]" in place of secrets.

    Secrets are: a value with a secret's name (nested values included, and in a URL's query), text in the form of a
    known key, and the value of an environment variable with a secret's name. Such a value must have 12 characters, or 8
    with a digit, so that `AUTH=disabled` does not make a common word a secret.
    """
    known = _known()
    return {str(name): _clean(str(name), value, known) for name, value in settings.items()}


def command_without_secrets(command: str) -> str:
    """A command line, quoted for the shell, with "[removed]" in place of secrets.

    Secrets are the same as in settings, given as `name=value` or `--name value`. A value that names a secret inside
    (`env={name: value}`) is removed as a whole, since only Hydra can tell where the inner value ends.
    """
    known, words, cleaned = _known(), shlex.split(command), []
    for before, word in zip(["", *words], words, strict=False):
        if before.startswith("--") and "=" not in before and _secret_name(before):
            cleaned.append(REMOVED)
            continue
        name, equals, value = word.partition("=")
        cleaned.append(
            f"{name}{equals}{_clean(name, _without_inner_secret(value), known)}"
            if equals
            else _text(_without_inner_secret(word), known)
        )
    return shlex.join(cleaned)


def _without_inner_secret(value: str) -> str:
    return REMOVED if any(_secret_name(name) for name in _INNER_NAME.findall(value)) else value


def _known() -> list[str]:
    """Secret values in the environment, longest first: one may be part of another."""
    found = {value for name, value in os.environ.items() if _secret_name(name) and _may_be_secret(value)}
    return sorted(found, key=len, reverse=True)


def _may_be_secret(value: str) -> bool:
    return len(value) >= (_SHORTEST_SECRET if any(c.isdigit() for c in value) else _SHORTEST_WORD)


def _clean(name: str, value: object, known: list[str]) -> object:
    if _secret_name(name) and value not in (None, "", {}, []):
        return REMOVED
    if isinstance(value, Mapping):
        return {str(key): _clean(str(key), inner, known) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_clean("", inner, known) for inner in value]
    return _text(value, known) if isinstance(value, str) else value


def _text(text: str, known: list[str]) -> str:
    for secret in known:
        text = text.replace(secret, REMOVED)
    text = _QUERY.sub(lambda found: f"{found[1]}={REMOVED}" if _secret_name(found[1]) else found[0], text)
    return _SECRET_VALUE.sub(REMOVED, text)


def _secret_name(name: str) -> bool:
    if name.rpartition(".")[2] in _SETTINGS:
        return False
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return not _SECRET_WORDS.isdisjoint(re.split(r"[^a-z0-9]+", words))
