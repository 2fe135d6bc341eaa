# `make demo` and `make test` set up all that they need in .venv. PYTHON is the interpreter to use (3.11 or later).
PYTHON ?= python3
PORT ?= 8000
BIN := .venv/bin

.PHONY: demo test test-all test-mariadb sites coverage matrix dist bench bench-docs messages mutants screenshots docs
.PHONY: lint format clean

demo: .venv/demo
	DEBUG=true PORT=$(PORT) $(BIN)/python manage.py migrate --verbosity 0
	DEBUG=true PORT=$(PORT) $(BIN)/python manage.py seed_demo
	DEBUG=true PORT=$(PORT) $(BIN)/python manage.py runserver 127.0.0.1:$(PORT)

PYTEST := pytest
# Tests that start browsers, type checkers or other processes are slow: `make test` leaves them to `make test-all`.
slow := $(patsubst %,tests/test_%.py,browser canaries chat_guide demo demo_chat frameworks letters processes \
	providers_guide readme scheduling spa testing types)
quick := $(filter-out $(slow) tests/test_sites.py,$(wildcard tests/test_*.py))
# The tests spend half of their time waiting, so they are divided into parts that run side by side.
$(foreach n,0 1 2 3 4 5,$(eval part$n := $(shell printf '%s\n' $(quick) | awk 'NR % 6 == $n')))
parts = $(foreach n,0 1 2 3 4 5,$1-part$n)

# Otherwise every process would compile the sources again.
unexport PYTHONDONTWRITEBYTECODE

test: .venv/test
	$(MAKE) --jobs=6 --output-sync=target $(call parts,sqlite)

test-all: .venv/test
	$(MAKE) --jobs=6 --output-sync=target \
		sqlite-slow postgresql-slow sites $(call parts,postgresql) $(call parts,sqlite)

# CONTRIBUTING.md lists the Debian packages that this needs.
test-mariadb: .venv/mariadb
	$(MAKE) --jobs=2 --output-sync=target mariadb-slow $(call parts,mariadb)

# Each test starts a process with its own database.
sites: .venv/test
	$(BIN)/$(PYTEST) tests/test_sites.py

coverage: .venv/test
	$(BIN)/coverage erase
	$(MAKE) test-all PYTEST='coverage run -m pytest'
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

postgresql-%: .venv/test
	$(BIN)/python -m tests.with_postgresql $(BIN)/$(PYTEST) $($*)

mariadb-%: .venv/mariadb
	$(BIN)/python -m tests.with_mariadb $(BIN)/$(PYTEST) $($*)

sqlite-%: .venv/test
	$(BIN)/$(PYTEST) $($*)

# NOX selects sessions, such as NOX='-s oldest' or NOX='-p 3.13'; `.venv/bin/nox -l` lists them.
matrix: .venv/matrix
	$(BIN)/nox $(NOX)

dist: .venv/dist
	rm -rf dist .venv/sbom
	$(BIN)/python -m build --no-isolation
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist
	$(PYTHON) -m venv --without-pip .venv/sbom
	$(BIN)/pip --python .venv/sbom install --quiet dist/*.whl
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-file sbom.cdx.json .venv/sbom

bench: .venv/bench
	$(BIN)/python -m tests.with_postgresql $(BIN)/python -m bench $(BENCH)

bench-docs: .venv/bench
	$(BIN)/python -m tests.with_postgresql $(BIN)/python -m bench --write $(BENCH)

messages: .venv/test
	$(BIN)/python -m tests.messages $(LANGUAGE)

mutants: .venv/mutants
	rm -rf mutants
	$(BIN)/mutmut run --max-children 2
	! $(BIN)/mutmut results | grep .

screenshots: .venv/test
	$(BIN)/python docs/screenshots.py

docs: .venv/docs
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet -c docs . site

lint: .venv/lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: .venv/lint
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf .venv .nox dist .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache demo.sqlite3* mutants sbom.cdx.json site

# A stamp file for each group of dependencies, so that `make demo` does not install the test tools.
.venv/%: pyproject.toml | .venv/pip
	$(BIN)/python -m pip install --quiet --editable . --group $*
	@touch $@

.venv/pip:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@touch $@
