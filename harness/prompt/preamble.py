"""The preamble: Jinja code that the contract puts before every template, so that every reader of it runs it.

It does two things that must not be left to the client of a server: it applies the system message policy, and it keeps
special-token text in a message (`<|im_end|>` typed by a user) as text.
"""

import json
from collections.abc import Sequence
from typing import Literal

SystemPolicy = Literal["none", "fixed", "required"]
MARK = "{#- prompt contract: preamble -#}"
END = "{#- end of preamble #}\n"  # its newline is dropped by Jinja (trim_blocks), the template's own is not


def with_preamble(
    template: str, policy: SystemPolicy, system: str | None, special: Sequence[str], added: Sequence[str] = ()
) -> str:
    """`template` after its preamble. Messages without these tokens render as before, byte for byte.

    `special` tokens stay text in every message, other `added` ones (think or tool tags) in all but the assistant's.
    """
    return "".join([MARK, _system(policy, system), _guard(special, added), END]) + template


def without_preamble(template: str) -> str:
    """The template as its author wrote it."""
    return template.partition(END)[2] if template.startswith(MARK) else template


def _system(policy: SystemPolicy, system: str | None) -> str:
    """fixed: puts the system message first unless there is one; required: refuses conversations without one."""
    if policy == "none":
        return ""
    missing = "{%- if not messages or messages[0].role != 'system' -%}"
    if policy == "required":
        return missing + "{{- raise_exception('the prompt contract requires a system message') -}}{%- endif -%}"
    message = f"{{'role': 'system', 'content': {_string(system or '')}}}"
    return missing + f"{{%- set messages = [{message}] + messages -%}}{{%- endif -%}}"


def _guard(special: Sequence[str], added: Sequence[str]) -> str:
    """Puts a space after the first character of every such token in a message's text."""
    if not special and not added:
        return ""
    return (
        f"{{%- set special = {_list(special)} -%}}"
        f"{{%- set added = {_list([*special, *added])} -%}}"
        "{%- set guarded = namespace(messages=[], content='') -%}"
        "{%- for message in messages -%}"
        "{%- if message.content is string -%}"
        "{%- set guarded.content = message.content -%}"
        "{%- for token in (special if message.role == 'assistant' else added) -%}"
        "{%- set guarded.content = guarded.content.replace(token, token[:1] + ' ' + token[1:]) -%}"
        "{%- endfor -%}"
        "{%- set guarded.messages = guarded.messages + [dict(message, content=guarded.content)] -%}"
        "{%- else -%}{%- set guarded.messages = guarded.messages + [message] -%}{%- endif -%}"
        "{%- endfor -%}"
        "{%- set messages = guarded.messages -%}"
    )


def _list(tokens: Sequence[str]) -> str:
    """A Jinja list, longest token first, since one token may be the start of another."""
    return "[" + ", ".join(_string(token) for token in sorted(set(tokens), key=lambda t: (-len(t), t))) + "]"


def _string(text: str) -> str:
    """A Jinja string literal: JSON's escapes are also Python's and Jinja's, except surrogate pairs beyond U+FFFF."""
    return json.dumps(text, ensure_ascii=False)
