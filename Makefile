# The two commands of the README (`make demo`, `make test`) and their parts; `make help` lists them.
SHELL := bash
.SHELLFLAGS := -o pipefail -c
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
MINUTES ?= 30
SEED ?= 0
DETECTRON2 := sal-detectron2==0.7.2

.PHONY: help setup demo test soak lint clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(BIN)/.installed ## create .venv with everything pinned in constraints.txt

# detectron2 has no official PyPI release. The mirror is tagged for Python 3.10 but is pure Python apart from the
# compiled `_C`, which this project does not need; --target puts it on any version.
$(BIN)/.installed: setup.py pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt setuptools wheel
	$(BIN)/python -m pip install --progress-bar off --no-build-isolation -c constraints.txt -e '.[detection,dev]' | sed '/already satisfied/d'
	$(BIN)/python -c 'import detectron2' 2>/dev/null || $(BIN)/python -m pip install --quiet --no-deps \
		--target "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
		--python-version 3.10 --implementation cp --abi none --platform any --only-binary=:all: $(DETECTRON2)
	$(BIN)/python -c 'import detectron2, pretrain, lazyrun, convmae_det, mimdet, convmae_seg'
	@touch $@

demo: setup ## draw a data set, train a tiny detector on it, evaluate, draw pictures (CPU, minutes)
	$(BIN)/python tools/demo.py

test: setup ## run the test suite, on all cores
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8

soak: setup ## try kills, damaged files and nonsense for MINUTES=30 with SEED=0; docs/robustness.md
	$(BIN)/python tests/soak.py --minutes $(MINUTES) --seed $(SEED)

lint: setup ## check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean: ## remove .venv and caches
	rm -rf $(VENV) *.egg-info .pytest_cache .ruff_cache
