# `make demo` and `make test` do all the set-up they need, in .venv; PYTHON names the interpreter (3.11 or later).
PYTHON ?= python3
PORT ?= 8000
BIN := .venv/bin

.PHONY: demo test sites coverage matrix dist bench bench-docs messages mutants screenshots
.PHONY: lint format clean

demo: .venv/demo
	DEBUG=true PORT=$(PORT) $(BIN)/python manage.py migrate --verbosity 0
	DEBUG=true PORT=$(PORT) $(BIN)/python manage.py seed_demo
	DEBUG=true PORT=$(PORT) $(BIN)/python manage.py runserver 127.0.0.1:$(PORT)

# Most tests wait as long as they compute: those that start browsers, or servers and processes, run beside the others.
PYTEST := pytest
browsers := $(patsubst %,tests/test_%.py,browser demo readme scheduling)
servers := $(patsubst %,tests/test_%.py,canaries client_check machine processes renewal selection sweep testing transport \
	wire)
others := $(filter-out $(browsers) $(servers) tests/test_sites.py,$(wildcard tests/test_*.py))

# Every process would compile the sources anew.
unexport PYTHONDONTWRITEBYTECODE

test: .venv/test
	$(MAKE) --jobs=6 --output-sync=target \
		postgresql-servers postgresql-others sqlite-browsers sqlite-servers sqlite-others sites

# Each is a process, with a database of its own.
sites: .venv/test
	$(BIN)/$(PYTEST) tests/test_sites.py

coverage: .venv/test
	$(BIN)/coverage erase
	$(MAKE) test PYTEST='coverage run -m pytest'
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

postgresql-%: .venv/test
	$(BIN)/python -m tests.with_postgresql $(BIN)/$(PYTEST) $($*)

sqlite-%: .venv/test
	$(BIN)/$(PYTEST) $($*)

# NOX chooses, such as NOX='-s oldest' or NOX='-p 3.13'; `.venv/bin/nox -l` lists what there is.
matrix: .venv/matrix
	$(BIN)/nox $(NOX)

dist: .venv/dist
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist

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

lint: .venv/lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: .venv/lint
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf .venv .nox dist .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache demo.sqlite3* mutants

# One stamp for each group of dependencies, so that a demo does not wait for the test tools.
.venv/%: pyproject.toml | .venv/pip
	$(BIN)/python -m pip install --quiet --editable . --group $*
	@touch $@

.venv/pip:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@touch $@
