"""The static checks by name. Each yields (severity, message) for what it finds, and nothing on a sound contract."""

from harness.prompt import static_mask, static_rendering, static_tokens
from harness.prompt.static import Check

CHECKS: dict[str, Check] = {
    "as recorded": static_rendering.as_recorded,
    "renders": static_rendering.usable,
    "mask": static_mask.mask,
    "generation markers": static_mask.markers,
    "supervised text": static_mask.answer,
    "prompt is a prefix": static_mask.prefix,
    "steady": static_rendering.steady,
    "stop ids": static_tokens.stops,
    "bos": static_tokens.bos,
    "whitespace": static_rendering.whitespace,
    "tokenizer round trip": static_tokens.round_trip,
    "forgery": static_tokens.forgery,
    "ignored": static_rendering.ignored,
    "preamble": static_rendering.preamble,
}
