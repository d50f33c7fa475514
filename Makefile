# `make help` lists the targets. CI runs the same ones (.ci/run, .github/workflows/ci.yml).
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# make test: longest time for all tests, seconds.
TEST_BUDGET_S ?= 720
# make demo: a MovieLens directory; without it a synthetic data set is made.
DATA ?=
PORT ?= 8000
DEMO_FLAGS ?=
# make serve, make bench: where the bundles are. `make demo` fills the default.
STORE ?= .marquee/demo/store
BENCH_FLAGS ?= --json

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(INSTALLED): pyproject.toml requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --editable '.[dev]' --constraint requirements.lock
	touch $@

.PHONY: setup
setup: $(INSTALLED) ## Make .venv with the locked packages

.PHONY: lint
lint: setup ## Check style, types and who may import whom
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: format
format: setup ## Rewrite the code in the house style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

.PHONY: test
test: setup ## Run every test; fails under 80% coverage or after 12 minutes
	timeout --signal=INT --kill-after=60 $(TEST_BUDGET_S) \
	  $(BIN)/python -m pytest --cov --cov-report=term --cov-fail-under=80 --durations=10

.PHONY: demo
demo: setup ## Ratings to recommendations: DATA=DIR for real ones, PORT=8000
	@exec $(BIN)/marquee demo $(if $(DATA),--data $(DATA)) --port $(PORT) $(DEMO_FLAGS)

.PHONY: serve
serve: setup ## Serve the published bundle: STORE=DIR or s3://..., PORT=8000
	@exec $(BIN)/marquee serve --store $(STORE) --port $(PORT)

.PHONY: bench
bench: setup ## Measure the served bundle against an empty endpoint: STORE=DIR
	@exec $(BIN)/marquee bench serve --store $(STORE) $(BENCH_FLAGS)

.PHONY: lock
lock: setup ## Write requirements.lock from what .venv holds
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > requirements.lock.new
	mv requirements.lock.new requirements.lock

.PHONY: clean
clean: ## Remove caches and the demo's output
	rm -rf .marquee/demo .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis \
	  .coverage .coverage.* htmlcov
