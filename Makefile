# Everything creates or refreshes .venv itself: a fresh machine needs Python 3.11+ and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
export OMP_WAIT_POLICY ?= passive
export TOKENIZERS_PARALLELISM ?= false

.PHONY: help quickstart test check format claims bench reward-models docs clean
help:            ## what can be made
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*## / - /'

# Stamps: the quickstart installs what it needs, development everything the tests need, the benchmark the library it compares with.
$(VENV)/.base: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[quickstart]'
	touch $@
$(VENV)/.dev: $(VENV)/.base
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@
$(VENV)/.bench: $(VENV)/.base
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	touch $@

OUT ?= quickstart
quickstart: $(VENV)/.base   ## from human ratings to a better model, with a report
	$(BIN)/guerdon quickstart --out $(OUT)
test: $(VENV)/.dev          ## the whole test suite, two files at a time
	$(BIN)/python -m pytest -n 2 --dist loadfile
check: $(VENV)/.dev         ## lint, format, types, generated docs
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/pyright && $(BIN)/python scripts/make_docs.py --check
format: $(VENV)/.dev        ## rewrite to the house style
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .
SEEDS ?= 0,1,2
claims: $(VENV)/.dev        ## run every claim: make claims SEEDS=3,4,5
	$(BIN)/python scripts/run_claims.py --seeds $(SEEDS)
BENCH ?=
bench: $(VENV)/.bench       ## time it beside TRL, 25 minutes: make bench BENCH=--quick
	env -u OMP_WAIT_POLICY $(BIN)/python -m benchmarks.run $(BENCH)   # threads wait as torch has them wait
reward-models: $(VENV)/.dev ## train a dozen reward models side by side, 10 minutes: docs/reward-models.md
	$(BIN)/python scripts/reward_models.py
docs: $(VENV)/.dev          ## regenerate docs/papers and docs/reference
	$(BIN)/python scripts/make_docs.py
clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache
