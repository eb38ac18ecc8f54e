# Every target sets up its own .venv from requirements.lock. Only Python 3.11-3.13, make and a package registry are needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test test-all check bench verify-store lock clean

help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 14

demo: $(READY)   ## the whole loop on real flights, about 3 minutes
	@$(BIN)/lakeloop demo

test: $(READY)   ## the tests, without the slow campaigns
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-all: $(READY) ## all tests, with the slow campaigns
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m ""

check: $(READY)  ## ruff, mypy --strict, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@mkdir -p build/mypy && ln -sfn ../.. build/mypy/lakeloop
	@cd build/mypy && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p lakeloop.lakehouse -p lakeloop.functions -p lakeloop.ray_jobs -p lakeloop.infra
	@$(BIN)/lint-imports

bench: $(READY)  ## the benchmarks; writes docs/benchmarks.md
	@$(BIN)/python -m tests.benchmarks

verify-store: $(READY) ## what a bucket keeps: BUCKET=name [ENDPOINT=url], or FOLDER=path
	@$(if $(ENDPOINT),AWS_ENDPOINT_URL='$(ENDPOINT)') $(BIN)/python -m lakeloop.infra.verify_store '$(or $(FOLDER),s3://$(BUCKET))'

lock:            ## pin all dependencies anew, without download addresses
	@$(PYTHON) -m pip install -q uv && $(PYTHON) -m uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --no-annotate --no-header --no-emit-index-url --no-emit-find-links -o requirements.lock

clean:           ## remove the environment and what was built
	@rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or sys.exit("lakeloop needs Python 3.11 to 3.13, this is %d.%d: make PYTHON=python3.11 ..." % v)'
	@echo "setting up $(VENV) (once, about a minute)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-warn-script-location -r requirements.lock 2>&1 | grep -v '^WARNING: Location' || true
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e . 2>&1 | grep -v '^WARNING: Location' || true
	@$(BIN)/python -c 'import lakeloop.infra.cli.app' && touch $@
