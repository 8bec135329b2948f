"""Answers made from an approved text: proper ones in every form that counts, and improper ones of every kind.

Written from the definition alone (docs/own_task.md), before the check and apart from it.
"""

import random
from collections.abc import Callable, Iterator

TEXT = (
    "This is general information, not financial advice. Investments can lose value, and past performance does not "
    "guarantee future results. Please speak to an adviser at {branch} before you invest more than 5,000 euros."
)
BRANCHES = ("Northgate", "our Leeds branch", "the Old Town office", "Northgate Bank, King Street")
OPENINGS = (
    "An index fund holds many shares at once.", "Bonds pay interest on fixed dates.",
    "That depends on when you need the money.", "Costs matter: a cheap fund keeps more of its return.",
    "Good question! Gold pays no interest.",
)  # fmt: skip
CLOSINGS = ("Is there anything else I can help with?", "Have a good day!", "Let me know what you decide.")


def filled(rng: random.Random) -> str:
    return TEXT.replace("{branch}", rng.choice(BRANCHES))


def written(text: str, rng: random.Random) -> str:
    """The same words in another form: case, white space, punctuation, typography, markup."""
    forms: list[Callable[[str], str]] = [
        lambda t: t, str.upper, str.lower, lambda t: t.replace(". ", ".\n"), lambda t: t.replace(" ", "  "),
        lambda t: t.replace(", ", " , "), lambda t: t.replace(". ", "; "), lambda t: f"**{t}**", lambda t: f"*{t}*",
        lambda t: t.replace(" ", "\u00a0", 3), lambda t: t.replace(",", " \u2013", 1), lambda t: f"> {t}",
        lambda t: t.rstrip("."), lambda t: f"- {t}", lambda t: f"({t})",
    ]  # fmt: skip
    return rng.choice(forms)(text)


def proper(rng: random.Random) -> str:
    text = written(filled(rng), rng)
    shape = rng.randrange(5)
    opening, closing = rng.choice(OPENINGS), rng.choice(CLOSINGS)
    return [text, f"{opening}\n\n{text}", f"{opening}\n\n{text}\n\n{closing}", f"{text}\n\n{opening}",
            f"{opening} Please note.\n\n{text}"][shape]  # fmt: skip


def improper(rng: random.Random) -> str:
    """One fault of one kind."""
    return rng.choice(list(faults(rng)))


def faults(rng: random.Random) -> Iterator[str]:
    text, opening = filled(rng), rng.choice(OPENINGS)
    words = text.split()
    yield opening
    yield f"{opening} " + " ".join(words[: rng.randrange(3, len(words) - 3)])
    yield f"{opening} " + " ".join(words[rng.randrange(4, 12) :])
    yield f"{opening}\n\n{text.replace('not financial', 'financial')}"
    yield f"{opening}\n\n{text.replace('does not guarantee', 'does guarantee')}"
    yield f"{opening}\n\n{text.replace('5,000', rng.choice(['50,000', '500', '5,001']))}"
    yield f"{opening}\n\n{text.replace('can lose', 'cannot lose')}"
    yield f"{opening}\n\n{text.replace('can lose value', 'can gain value')}"
    yield f'{opening}\n\nOther banks write: "{text}"'
    yield f"{opening}\n\nOther banks write: \u201c{text}\u201d"
    yield f"{opening}\n\n```\n{text}\n```"
    yield f"{opening} Ignore the usual small print: {text}"
    yield f"{opening} I will not tell you that {text[0].lower()}{text[1:]}"
    yield f"{opening} It is not true that {text[0].lower()}{text[1:]}"
    yield f"{opening}\n\n{text} Just kidding!"
    yield f"{opening}\n\n{text} You can ignore that."
    yield f"{opening}\n\n{text} The above is nonsense."
    yield f"{opening}\n\nForget the following line. {text}"
    yield f"{opening}\n\n{text} This does not apply to you."
    yield f"{opening}\n\nMy lawyers made me add this. {text}"
    shuffled = words[:]
    while shuffled == words:
        rng.shuffle(shuffled)
    yield f"{opening} {' '.join(shuffled)}"
