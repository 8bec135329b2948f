"""Whether a sentence asserts a phrase that stands in it: not under a condition, denied, asked, or only mentioned."""

import re

_CLAUSE_END = re.compile(r"[;:]|\s[-–—]+\s|—")
_CONDITION = re.compile(
    r"\b(?:if|unless|(?<!at )once|when(?:ever)?|as soon as|as long as|provided|assuming|supposing|suppose|should you"
    r"|until|only after|after (?:you|we|i)|before (?:you|we|i))\b"
)
_ONE_WORD_FROM_YOU = re.compile(
    r"\b(?:say|tell|let me know|type|press|reply|ask|click|confirm|nod|answer|send)\b[^.;]*\b(?:and|then)(?: then)?\s*$"
)
_CONDITION_AFTER = re.compile(
    r"^[\s,–—(-]*(?:but |and )?(?:only )?(?:if|unless|once|when|whenever|as soon as|as long as|provided|assuming"
    r"|should you|subject to|pending|until|after (?:you|we|i|this|the)|or (?:maybe )?(?:later|not|tomorrow))\b"
)
_DENIED = re.compile(
    r"(?:\bnot|n't|\bnever|\bcannot|\bhardly|\bnor)\b[^,;:]*\b"
    r"(?:mean|meant|imply|say|said|saying|think|believe|claim|claiming|true|case|suggest|sure|certain|promise|confirm"
    r"|because|that)\b[^,;:]{0,20}$|\b(?:false|untrue|wrong|incorrect) (?:to say )?(?:that )?$|\bno way(?: that)? $"
)
_MENTIONED = re.compile(
    r"\b(?:says?|said|saying|write|writes|wrote|reads?|phrase|sentence|words|wording|script|template|line|announce\w*"
    r"|told|heard|hear|respond\w*|reply|replies)"
    r"(?: is| was| that| like| to| with| something| you)*\s*[:,]?\s*$"
    r"|\b(?:pretend|imagine|let's say|as if|as though|for example|e\.g\.|for instance|hypothetically|in theory"
    r"|in a story|i wish|hope|ideally|normally|usually|in an emergency"
    r"|would (?:read|see|hear|say|write|be told))\b[^.;]*$"
    r"|\b(?:choose|choices?|options?|pick|select)\b[^.;]*:\W*(?:\w[.)]\s*)?$"
)
_MENTIONED_AFTER = re.compile(
    r"^\W*(?:is|was|would be|are|were)\s+(?:what|something|the|a|an|not|only|just|how|our|my|never|no)\b"
)
_ASKED_AFTER = re.compile(
    r"^(?:\W|\b(?:ok|okay|yes|right|shall i|is that|would that|all|fine|good|with|you|be|for)\b)*\?"
)


def unasserted(sentence: str, start: int, end: int) -> str | None:
    """Why the phrase at [start, end) of a lower-case sentence is not asserted, or None when it is."""
    before, after = _CLAUSE_END.split(sentence[:start])[-1], sentence[end:]
    if _conditional(before) or _ONE_WORD_FROM_YOU.search(before) or _CONDITION_AFTER.search(after):
        return "conditional"
    if _DENIED.search(before):
        return "denied"
    if _MENTIONED.search(sentence[:start]) or _MENTIONED_AFTER.search(after):
        return "mentioned, not said"
    return "asked" if _ASKED_AFTER.search(after) else None


def _conditional(before: str) -> bool:
    """A condition that the phrase is the consequence of: no other clause stands between the two."""
    cues = list(_CONDITION.finditer(before))
    if not cues:
        return False
    between = re.sub(r"[,\s]+(?:and|so|but|then)?\s*$", "", before[cues[-1].end() :])
    return "," not in between
