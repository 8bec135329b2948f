"""Writes a fingerprint file of texts that the legal filter looks for.

    python scripts/fingerprint_texts.py OUT.json NAME=FILE [NAME=FILE …]

The file holds hashes and the names, not the texts. The shipped harness/data/filters/licence_texts.json was made from
Debian's /usr/share/common-licenses and the licence files of installed packages.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from harness.data.fingerprints import Fingerprints


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; exits with 2 where one is missing or unknown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT.json")
    parser.add_argument("texts", nargs="+", metavar="NAME=FILE")
    given = parser.parse_args(arguments)
    if wrong := [text for text in given.texts if "=" not in text]:
        parser.error(f"not NAME=FILE: {', '.join(wrong)}")
    return given


def main() -> None:
    given = options()
    named = dict(text.split("=", 1) for text in given.texts)
    made = Fingerprints.of({name: Path(file).read_text(errors="replace") for name, file in named.items()})
    made.save(given.out)
    print(f"{len(made.hashes)} hashes of {len(named)} texts")


if __name__ == "__main__":
    main()
