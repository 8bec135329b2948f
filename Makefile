# Every target works on a bare machine with a Python 3.11, 3.12 or 3.13: `.venv` is made on the first call.
# PYTHON=<interpreter> prefers one; HARNESS_BUILD=cpu|gpu overrides what the machine suggests;
# HARNESS_UV=0 installs with pip even where uv is on PATH.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help setup demo test lock release clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s  %s\n", $$1, $$2 }' Makefile

# Any Python 3.8 can look for the right one; each candidate is run, since a launcher may exist and still fail.
setup: ## make .venv ready: once, then a check of under a second
	@for python in "$$PYTHON" .venv/bin/python python3 python3.13 python3.12 python3.11 python; do \
	  if [ -n "$$python" ] && "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 8))' </dev/null >/dev/null 2>&1; then \
	    exec "$$python" scripts/setup_env.py; \
	  fi; \
	done; \
	echo 'set-up: no Python 3 was found (tried $$PYTHON, python3, python3.13, python3.12, python3.11, python).' >&2; \
	echo 'Install Python 3.11, 3.12 or 3.13 with venv and pip (Debian 12: apt-get install python3 python3-venv).' >&2; \
	exit 3

demo: setup ## fine-tune, evaluate and gate the finance disclaimer example
	.venv/bin/harness run experiment=finance_disclaimer

test: setup ## lint, format check, layers of imports, types, then all tests
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/lint-imports --no-cache
	.venv/bin/mypy
	.venv/bin/python -m pytest

lock: setup ## write requirements/*.txt again: every dependency with its hash, at the versions that are installed
	.venv/bin/pip install --quiet '.[release]'
	.venv/bin/python scripts/lock.py

release: setup ## dist/: the wheel, a bill of materials (CycloneDX) for each lock, and known vulnerabilities
	.venv/bin/pip install --quiet '.[release]'
	.venv/bin/python scripts/lock.py --release

clean: ## remove .venv and caches; runs/ stays
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find . -name .git -prune -o -path ./runs -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +
