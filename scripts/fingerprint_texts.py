"""Makes a fingerprint file of texts to look for: python scripts/fingerprint_texts.py OUT.json NAME=FILE [NAME=FILE …]

Only hashes and the names are written. The shipped harness/data/filters/licence_texts.json was made from Debian's
/usr/share/common-licenses and the licence files of installed packages.
"""

import sys
from pathlib import Path

from harness.data.fingerprints import Fingerprints


def main(arguments: list[str]) -> int:
    if len(arguments) < 2 or any("=" not in argument for argument in arguments[1:]):
        print(__doc__, file=sys.stderr)
        return 2
    named = dict(argument.split("=", 1) for argument in arguments[1:])
    texts = {name: Path(file).read_text(errors="replace") for name, file in named.items()}
    made = Fingerprints.of(texts)
    made.save(Path(arguments[0]))
    print(f"{len(made.hashes)} hashes of {len(texts)} texts")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
