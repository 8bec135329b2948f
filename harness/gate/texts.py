"""What an item asked and what was answered, read from its row of a samples file when it is shown."""

import json
from pathlib import Path
from typing import Any

SHOWN = 2000


def texts(path: Path, place: int) -> tuple[str, str]:
    """Prompt and response of the row at a byte offset, shortened."""
    with path.open("rb") as file:
        file.seek(place)
        row = json.loads(file.readline())
    return prompt_of(row)[-SHOWN:], _response(row)


def prompt_of(row: dict[str, Any]) -> str:
    """The text of the first request; '' where a row holds none."""
    first = row.get("arguments")
    for _ in range(2):  # the first request, and its first argument: lists in old files, objects by name in new ones
        first = next(iter(first.values() if isinstance(first, dict) else first), "") if first else ""
        if isinstance(first, str):
            break
    return str(first)


def _response(row: dict[str, Any]) -> str:
    """The answer as text: what was generated, or which choice was the most likely."""
    responses: Any = row.get("filtered_resps") or [""]
    if not isinstance(responses, list):
        return str(responses)[:SHOWN]
    if isinstance(responses[0], str):
        return responses[0][:SHOWN]
    scores = [float(r[0]) for r in responses if isinstance(r, list | tuple) and r]
    best = max(range(len(scores)), key=scores.__getitem__) if scores else 0
    choices = (row.get("doc") or {}).get("choices")
    return str(choices[best]) if isinstance(choices, list) and best < len(choices) else f"choice {best}"
