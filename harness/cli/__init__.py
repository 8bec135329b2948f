"""The command line."""

from harness.cli.entry import main as main
