"""The contract as a card for people (Markdown): what is sent, what ends an answer, and what to know about it."""

import html
import re
from collections.abc import Sequence

from harness.core.console import plural
from harness.prompt.contract import Contract
from harness.prompt.static import Problem

CARD_FILE = "prompt_card.md"
POLICIES = {
    "none": "none is added; the template renders one that a request sends",
    "fixed": "always present; the template puts it first unless a request brings its own",
    "required": "every request must bring one; the template refuses requests without one",
}


def contract_card(contract: Contract, notes: Sequence[Problem] = ()) -> str:
    """The card of a contract as Markdown; `notes` are those of the static checks."""
    bos = "written once by the template" if contract.bos_policy == "template" else "not at the start of a prompt"
    tokens = plural(len(contract.guarded), "token")
    guarded = f"kept as text ({tokens})" if contract.guarded else "not kept as text"
    rows = {
        "Template": f"{contract.template_name} (sha256 `{contract.template_sha256[:12]}…`)",
        "Contract": f"`{contract.digest}`",
        "Tokenizer": f"`{contract.tokenizer_sha256}`",
        "System message": f"{contract.system_policy}: {POLICIES[contract.system_policy]}",
        "User turn": " … ".join(map(_code, contract.turns["user"])),
        "Assistant turn": " … ".join(map(_code, contract.turns["assistant"])),
        "Generation prompt": _code(contract.generation_prompt),
        "Ends a turn": f"{_code(contract.end_of_turn)} (id {contract.end_of_turn_id})",
        "Stop ids": ", ".join(map(str, contract.stop_ids)),
        "BOS": f"{_code(contract.bos or 'none')}, {bos}",
        "EOS": _code(contract.eos or "none"),
        "Template arguments": ", ".join(f"{k}={v}" for k, v in contract.template_kwargs.items()) or "none",
        "Message content": f"{contract.content_format}; special tokens in it are {guarded}",
        "Longest conversation": f"{contract.max_length} tokens; longer ones are reported, never cut",
        "Sampling defaults": ", ".join(f"{key} {value:g}" for key, value in contract.sampling.items()),
        "Made with": ", ".join(f"{name} {found}" for name, found in contract.libraries.items()),
    }
    lines = [f"# Prompt contract: {contract.template_name}", "", "| | |", "| --- | --- |"]
    lines += [f"| {name} | {_cell(text)} |" for name, text in rows.items()]
    if contract.system is not None:
        lines += ["", "System message:", "", *_block(contract.system)]
    if notes:
        lines += ["", "Notes:", "", *(f"- {note.check}: {_cell(note.message)}" for note in notes)]
    lines += ["", "## Golden conversations", "", "| name | tokens | prompt | supervised |", "| --- | --- | --- | --- |"]
    for golden in contract.golden:
        if reason := golden.refused or golden.untrainable:
            lines.append(f"| {golden.name} | {_cell(reason)} | | |")
        else:
            lines.append(f"| {golden.name} | {len(golden.ids)} | {golden.prompt_length} | {sum(golden.mask)} |")
    return "\n".join([*lines, "", "## Template", "", *_block(contract.template), ""])


def _code(text: str) -> str:
    """A code span, with a fence longer than any run of backticks inside."""
    runs = re.findall("`+", text)
    fence = "`" * (1 + max(map(len, runs), default=0))
    return f"{fence}{text!r}{fence}"


def _cell(text: str) -> str:
    """Text for a table cell or a list, without markup except for code spans made here."""
    spans = re.split(r"(`+'.*?'`+)", text.replace("\n", " "))
    shown = [span if number % 2 else html.escape(span, quote=False) for number, span in enumerate(spans)]
    return "".join(shown).replace("|", "\\|")


def _block(text: str) -> list[str]:
    """An indented code block, which has no fence that the text could close."""
    return [f"    {line}" for line in text.splitlines()]
