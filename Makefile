# Two commands are enough: `make demo` and `make test`. Everything is installed into .venv, once.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
PY := $(VENV)/bin/python
# Which torch to install: on Linux, pip's default is the CUDA build. docs/getting-started.md says how to choose another.
PIP_TORCH ?= torch==2.13.0
PIP := $(PY) -m pip --disable-pip-version-check -qq
# without its dependencies: it declares torchvision, whose builds fit one torch each, for two architectures that nobody asked for here
SPANDREL := $(PIP) install --no-deps spandrel==0.4.2
ARGS ?=
# many tests wait for real processes: three at a time keep two cores busy
TEST_PROCESSES ?= 3
# the quick checks wait for nothing: one process a core
CHECK_PROCESSES ?= 2

# one thread: on a busy machine, two threads of a small model are many times slower than one
export OMP_NUM_THREADS ?= 1
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: help demo test check browser wheels installation catalogue specification faults screenshots up lint prose sizes format constraints docs translations clean

help: ## show this list
	@awk -F':.*## ' '/^[a-z]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## render examples/products.csv on a farm of its own into outputs/demo/
	@$(VENV)/bin/imagefarm demo $(ARGS)

up: $(VENV)/.demo ## run the whole farm here and print its URL; Ctrl-C stops it
	@$(VENV)/bin/imagefarm up $(ARGS)

test: $(VENV)/.test ## run the tests (ARGS="tests/imagefarm -k recipe" for some of them)
	@$(PY) -m pytest -m "not slow" -n $(TEST_PROCESSES) --dist loadfile $(ARGS)

browser: ## install Chromium and a font with Chinese characters, which the browser tests need
	@tools/browser.sh

catalogue: $(VENV)/.test ## a catalogue of 200 products on a real farm: drafts, picks, finals, channels, webhook, update
	@$(PY) -m pytest -m slow tests/e2e/test_catalogue.py $(ARGS)

wheels: $(VENV)/.python ## build both wheels, imagefarm and imagefarm-server, into dist/
	@rm -rf build packages/client/build
	@$(PIP) wheel --no-deps -w dist ./packages/client .
	@ls dist

installation: $(VENV)/.test ## install both wheels into environments of their own, and render a picture in an empty folder
	@$(PY) -m pytest -m slow tests/e2e/test_wheels.py $(ARGS)

specification: $(VENV)/.test ## ask the whole API what its OpenAPI document allows and forbids, for some minutes
	@$(PY) -m pytest -m slow tests/api/v1/test_specification.py $(ARGS)

# FAULT=child-killed,worker-killed SEEDS=20 JOBS=24 DB=sqlite|postgresql|both; ARGS="--fake" for many seeds on a small machine
faults: $(VENV)/.test ## kill, freeze, fill and cut a real farm, and count what was lost (docs/reliability.md)
	@$(PY) -W ignore -m tests.faults.campaign --fault $(or $(FAULT),all) --seeds $(or $(SEEDS),3) --jobs $(or $(JOBS),24) --db $(or $(DB),both) $(ARGS)

check: lint ## the quick checks before a commit: lint, and the tests that start no process and load no model
	@$(PY) -m pytest -m "not slow and not process and not model" -n $(CHECK_PROCESSES) --dist loadfile -q $(ARGS)

prose: $(VENV)/.test ## find the words that a reader has to guess at (ARGS=--count for the number in each folder)
	@$(PY) -m tools.prose $(ARGS)

sizes: $(VENV)/.test ## find files, functions and folders that are over their limit (ARGS="--top 20" for the longest)
	@$(PY) -m tools.sizes $(ARGS)

lint: $(VENV)/.test ## check style, types, import direction, wording and sizes
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports
	@$(PY) -m tools.prose
	@$(PY) -m tools.sizes

format: $(VENV)/.test ## put the code into the project's style
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

constraints: $(VENV)/.test ## pin the versions that are installed now into constraints.txt
	@$(PY) tools/constraints.py constraints.txt

docs: $(VENV)/.test ## write docs/settings.md and docs/cli/ from the code
	@$(PY) -m tools.pages

translations: $(VENV)/.test ## collect the texts of the pages into api/translations, and say which have no translation
	@$(PY) -m tools.translations

screenshots: $(VENV)/.test ## photograph every page, wide and narrow, light and dark, into docs/screenshots
	@$(PY) -m tools.screenshots docs/screenshots $(ARGS)

clean: ## remove .venv, caches and outputs/demo; your farm's data folder stays
	rm -rf $(VENV) build dist packages/client/build outputs/demo *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.python:
	@for python in python3.11 python3.12 python3 python3.13; do \
	  if "$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; then \
	    echo "making $(VENV) with $$("$$python" --version)"; \
	    "$$python" -m venv --clear $(VENV) && touch $@ && exit 0; \
	  fi; \
	done; \
	echo "no Python 3.11, 3.12 or 3.13 found on the PATH: install one (with its venv module) and try again" >&2; exit 1

# torch first and alone, so that nothing else chooses its build
$(VENV)/.torch: $(VENV)/.python
	@echo "installing $(PIP_TORCH) (once; the download is large)"
	@$(PIP) install $(PIP_TORCH)
	@touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml packages/client/pyproject.toml constraints.txt
	@echo "installing imagefarm and what it needs (once)"
	@$(PIP) install -c constraints.txt -e ./packages/client -e '.[worker]'
	@$(SPANDREL)
	@touch $@

$(VENV)/.test: $(VENV)/.demo pyproject.toml constraints.txt
	@echo "installing what the tests need (once)"
	@$(PIP) install -c constraints.txt -e ./packages/client -e '.[worker,int8,postgres,bucket,test]'
	@touch $@
