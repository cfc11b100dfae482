# Needs Python 3.11 or newer and make; everything else is fetched, once, into .venv and checked against its hash.

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
# What the commands need, and what the other targets need besides.
LOCAL := $(VENV)/.local
STAMP := $(VENV)/.complete
DOCS_STAMP := $(VENV)/.docs

# PYTHON=… chooses the interpreter; a .venv of another one is made again.
IDENTITY := import sys; print(sys.version, sys.base_prefix)
ifdef PYTHON
ifneq ($(shell "$(PYTHON)" -c "$(IDENTITY)" 2>&1),$(shell $(BIN)/python -c "$(IDENTITY)" 2>&1))
$(shell rm -f $(LOCAL))
endif
endif
export PYTHON
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade \
	--no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "make lock"

# Quiet while it finds nothing: it warns of every exception that a line needs only for some of its parts.
BANDIT := said=$$($(BIN)/bandit --quiet --configfile pyproject.toml --recursive stream_scorer 2>&1) \
	|| { echo "$$said"; exit 1; }

# The tests wait more than they work, so six share two cores and one Kafka.
WORKERS ?= 6
PYTEST_ARGS ?=

# Many images set it. Each process would compile the package again, and each of the test workers all tests.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install setup lint format test demo bench bench-tracing fuzz chaos api-table reference docs audit lock clean dist

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1@\2/p' Makefile | while IFS=@ read -r name text; do \
		printf '%-14s %s\n' "$$name" "$$text"; done

install: $(LOCAL) ## Make .venv with what all commands need, and no tools of the tests (240 MB; demo does this first)
	@echo "the commands are in $(BIN): . $(BIN)/activate"

setup: $(STAMP) ## Make .venv with everything in it (770 MB; the other targets below do this first)

$(LOCAL): requirements/local.txt requirements/build.txt requirements/install.sh pyproject.toml
	@requirements/install.sh --with-project local.txt build.txt
	@touch $(LOCAL)

$(STAMP): $(LOCAL) requirements/dev.txt
	@requirements/install.sh dev.txt
	@touch $(STAMP)

lint: $(STAMP) ## Style (ruff), types (mypy --strict), unsafe calls (bandit)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@$(BANDIT)

format: $(STAMP) ## Put every file into the form that lint asks for
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: $(STAMP) ## All tests but the slow ones, on a real Kafka (fetched once: 45 MB)
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal -m "not slow" $(PYTEST_ARGS)

demo: $(LOCAL) ## Kafka, API, workers and 20,000 contacts on this machine; CONTACTS=… for more or fewer
	@$(BIN)/stream-scorer demo $(if $(CONTACTS),--contacts $(CONTACTS)) $(if $(SCENARIO),--scenario $(SCENARIO))

bench: $(STAMP) ## How fast the worker is against a bare loop
	$(BIN)/python benchmarks/bench.py $(BENCH_ARGS)

fuzz: $(STAMP) ## The tests of hostile input and of an API with faults, EFFORT times (100) as hard as make test tries them
	FUZZ_EFFORT=$(or $(EFFORT),100) $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal --timeout 7200 $(PYTEST_ARGS) tests/fuzz \
		tests/unit/test_dispatcher_random.py tests/unit/test_deliverer.py tests/unit/test_delivery_outages.py

bench-tracing: $(STAMP) ## What traces cost the worker: off, 0 %, 1 % and 100 % sampled
	$(BIN)/python benchmarks/tracing.py $(BENCH_ARGS)

chaos: $(STAMP) ## Kills, stops, outages and zombies: does the invariant hold?
	$(BIN)/python -m pytest -m slow --timeout 3600 $(PYTEST_ARGS) tests/chaos tests/e2e

api-table: $(STAMP) ## Play every answer of the API again, and write docs/api-behaviour.md
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal --api-table docs/api-behaviour.md $(PYTEST_ARGS) \
		$(filter-out %_behaviour.py,$(wildcard tests/e2e/test_api_*.py))

reference: $(STAMP) ## Write the tables of the reference pages in docs/ from the code
	$(BIN)/python tests/tools/reference_pages.py

docs: $(DOCS_STAMP) ## The pages as a site, in build/site; it needs no network and no server to be read
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --builder html --conf-dir docs/site . build/site
	@echo "build/site/index.html"

$(DOCS_STAMP): $(LOCAL) requirements/docs.txt
	@requirements/install.sh docs.txt
	@touch $(DOCS_STAMP)

audit: $(STAMP) ## Known vulnerabilities of what the wheel needs; offline: ADVISORIES=a checkout of an OSV database
	@$(BANDIT)
	@$(if $(ADVISORIES),$(BIN)/python tests/tools/offline_audit.py $(ADVISORIES),$(BIN)/pip-audit) --strict --disable-pip --require-hashes --progress-spinner off $(AUDIT_ARGS) --requirement requirements/run.txt || { \
		echo "make audit: the packages above are vulnerable or could not be checked (offline?): no result" >&2; exit 1; }

lock: $(STAMP) ## Choose the newest versions that pyproject.toml allows, and their hashes
	$(COMPILE) --extra local --extra dev --output-file requirements/dev.txt pyproject.toml
	$(COMPILE) --output-file requirements/run.txt pyproject.toml
	$(COMPILE) --extra local --constraint requirements/dev.txt --output-file requirements/local.txt pyproject.toml
	$(COMPILE) --extra docs --constraint requirements/dev.txt --output-file requirements/docs.txt pyproject.toml
	printf 'hatchling\ncyclonedx-bom\n' | $(COMPILE) --constraint requirements/dev.txt --output-file requirements/build.txt -

dist: $(LOCAL) ## Source distribution, wheel, and the list of what the wheel needs (SBOM, CycloneDX), in dist/
	$(BIN)/python -m hatchling build
	$(BIN)/cyclonedx-py requirements requirements/run.txt --pyproject pyproject.toml --output-reproducible --output-file dist/sbom.cdx.json

clean: ## Remove what the targets above made, but no data
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
