"""The command line: one module per family of verbs."""

from harness.cli.entry import main as main
