SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Made anew where the dependencies change; the package itself is installed in place and needs no second install.
INSTALLED := $(VENV)/.installed

.PHONY: help
help: ## Print these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: install
install: $(INSTALLED) ## Create .venv with everything pinned in constraints.txt (skipped when nothing changed)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is missing or older than 3.11: name another by PYTHON=..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "no virtual environment: does this Python lack its venv package?" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[local,dev]'
	@# Without it every Ray process compiles Ray anew where PYTHONDONTWRITEBYTECODE is set: 15 s to start against 6.
	$(BIN)/python -m compileall -q -j 0 $(VENV)/lib asyncproc serve_app.py || \
		echo "some files could not be byte-compiled: harmless unless the start is slow"
	@touch $@

.PHONY: up
up: $(INSTALLED) ## Start Postgres, Ray and the API on this machine; Ctrl-C stops them
	@$(BIN)/asyncproc up

.PHONY: check
check: $(INSTALLED) ## Format, lint, types, layers, file sizes
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy examples scripts serve_app.py
	$(BIN)/lint-imports
	$(BIN)/python scripts/check_file_sizes.py

.PHONY: test
test: $(INSTALLED) ## Run the tests in two processes; ARGS are passed to pytest
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

.PHONY: cluster-test
cluster-test: $(INSTALLED) ## `ray up` over ssh to three hosts made of network namespaces (minutes; needs root)
	ASYNCPROC_CLUSTER_TEST=1 $(BIN)/python -m pytest tests/cluster -rs $(ARGS)

.PHONY: simulate
simulate: $(INSTALLED) ## Run the core through 10,000 histories of faults, and the mutants; ARGS='--seed 7 --trace' replays one
	$(BIN)/python -m simulation $(or $(ARGS),--seeds 10000 --mutants)

.PHONY: chaos
chaos: $(INSTALLED) ## Load the system under each fault and write chaos/REPORT.md (an hour); FAULT=queue_kill runs one
	$(BIN)/python -m chaos $(FAULT) $(ARGS)

.PHONY: bench
bench: $(INSTALLED) ## Measure the budgets and write bench/REPORT.md (half an hour); ROW=drain measures one
	$(BIN)/python -m bench $(ROW) $(ARGS)

.PHONY: format
format: $(INSTALLED) ## Format the code and fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: constraints
constraints: $(INSTALLED) ## Pin all dependencies in constraints.txt; ARGS=--upgrade takes newer releases
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra local --extra dev \
		--no-header --no-annotate --no-emit-index-url --no-emit-find-links \
		--output-file constraints.txt $(ARGS) pyproject.toml

.PHONY: wheel
wheel: $(INSTALLED) ## Build the source distribution and the wheel into dist/
	$(BIN)/python -m build
