"""Leaves a file when it is imported."""

from pathlib import Path

Path("it_ran").write_text("imported")


def question(doc: dict[str, str]) -> str:
    return doc["q"]
