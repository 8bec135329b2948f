"""`python -m harness.cli` does the same as `harness`."""

import sys

from harness.cli import main

sys.exit(main())
