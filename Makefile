# `make help` lists the targets. CI runs the same ones (.ci/run, .github/workflows/ci.yml).
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# make test: longest time for all tests, seconds.
TEST_BUDGET_S ?= 900
# make demo: a MovieLens directory; without it a synthetic data set is made.
DATA ?=
PORT ?= 8000
DEMO_FLAGS ?=
# make serve, make bench: where the bundles are. `make demo` fills the default.
STORE ?= .marquee/demo/store
BENCH_FLAGS ?= --json
# make fuzz: cases per operation, and a running service; without it one on a small bundle.
CASES ?= 100
URL ?=
FAULTS_FLAGS ?= --json
LOAD_FLAGS ?= --json
# make image: its name, and where pip finds torch's build (see the Dockerfile).
IMAGE ?= marquee:0.1.0
TORCH_INDEX_URL ?=
TORCH_BUILD ?= cpu
# make kind-up, minikube-up: the operator's version; it is applied from its own repository.
KUBERAY ?= v1.7.0
NAMESPACE ?= marquee
OPERATOR := github.com/ray-project/kuberay/ray-operator/config/default?ref=$(KUBERAY)

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

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
test: setup ## Run every test; fails under 80% coverage or after 15 minutes
	timeout --signal=INT --kill-after=60 $(TEST_BUDGET_S) \
	  $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term --cov-fail-under=80 --durations=10

.PHONY: demo
demo: setup ## Ratings to recommendations: DATA=DIR for real ones, PORT=8000
	@exec $(BIN)/marquee demo $(if $(DATA),--data $(DATA)) --port $(PORT) $(DEMO_FLAGS)

.PHONY: serve
serve: setup ## Serve the published bundle: STORE=DIR or s3://..., PORT=8000
	@exec $(BIN)/marquee serve --store $(STORE) --port $(PORT)

.PHONY: bench
bench: setup ## Measure the served bundle against an empty endpoint: STORE=DIR
	@exec $(BIN)/marquee bench serve --store $(STORE) $(BENCH_FLAGS)

.PHONY: openapi
openapi: setup ## Write docs/openapi.json from the code
	$(BIN)/marquee openapi --out docs/openapi.json

.PHONY: fuzz
fuzz: setup ## Have schemathesis ask all it can think of: CASES=100 per operation, URL=http://...
	$(BIN)/python -m tests.live $(if $(URL),--url $(URL)) --max-examples $(CASES)

.PHONY: faults
faults: setup ## Hurt the served bundle under load and count what users notice: STORE=DIR
	@exec $(BIN)/marquee bench faults --store $(STORE) $(FAULTS_FLAGS)

.PHONY: load
load: setup ## A load test: SCENARIO=normal|peak|stress|autoscale, DURATION=seconds, STORE=DIR
	@exec $(BIN)/marquee bench load --store $(STORE) --scenario $(or $(SCENARIO),normal) \
	  $(if $(DURATION),--duration-s $(DURATION)) $(LOAD_FLAGS)

.PHONY: k8s
k8s: setup ## Write k8s/ and the chart's schema, README and dashboards from the chart
	$(BIN)/python -m helm.generate

.PHONY: image
image: ## Build the image: TORCH_INDEX_URL=..., TORCH_BUILD=cpu|cuda
	docker build --build-arg TORCH_INDEX_URL=$(TORCH_INDEX_URL) \
	  --build-arg TORCH_BUILD=$(TORCH_BUILD) --tag $(IMAGE) .

.PHONY: image-check
image-check: ## Build and run the image without a registry or Docker (root, Debian); says what it skips
	bash k8s/image-check.sh

.PHONY: kind-up
kind-up: image ## A cluster in Docker: operator, chart, smoke test
	kind create cluster --config k8s/kind.yaml --wait 120s
	kind load docker-image $(IMAGE) --name marquee
	$(MAKE) --no-print-directory release SCENARIO=kind

.PHONY: minikube-up
minikube-up: image ## The same on minikube
	minikube start --profile marquee --cpus 4 --memory 10g
	minikube --profile marquee image load $(IMAGE)
	$(MAKE) --no-print-directory release SCENARIO=minikube

.PHONY: release
release: ## Operator, chart and smoke test on the current cluster: SCENARIO=kind
	kubectl apply --server-side --kustomize "$(OPERATOR)"
	kubectl -n ray-system rollout status deployment/kuberay-operator --timeout 300s
	helm upgrade --install marquee helm/marquee --namespace $(NAMESPACE) --create-namespace \
	  --values helm/marquee/ci/$(SCENARIO)-values.yaml
	kubectl -n $(NAMESPACE) wait rayservice/marquee --for=condition=Ready --timeout 1200s
	helm test marquee --namespace $(NAMESPACE) --logs --timeout 15m

.PHONY: kind-load
kind-load: setup ## Load the service on kind until Ray adds workers; prints the timeline as JSON
	kubectl -n $(NAMESPACE) port-forward service/marquee-serve-svc 18000:8000 >/dev/null & \
	  forward=$$!; trap "kill $$forward" EXIT; sleep 3; \
	  $(BIN)/marquee bench ramp http://127.0.0.1:18000 --clients 2,64,64,2,2 --step-s 60 \
	    --namespace $(NAMESPACE) --json

.PHONY: kind-down
kind-down: ## Delete that cluster
	kind delete cluster --name marquee

.PHONY: lock
lock: setup ## Write requirements.lock from what .venv holds
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > requirements.lock.new
	mv requirements.lock.new requirements.lock

.PHONY: rectools
rectools: setup ## Put RecTools, which the lock cannot hold, in .rectools: a baseline to measure against
	$(BIN)/python -m pip install --no-deps --upgrade --target .rectools \
		--requirement requirements.rectools.txt

.PHONY: clean
clean: ## Remove caches and the demo's output
	rm -rf .marquee/demo .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis \
	  .coverage .coverage.* htmlcov
