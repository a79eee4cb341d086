# Two commands: `make run` and `make test`. Everything else is for those who change the code.
# HOST=, PORT=, PYTHON= and every variable in .env.example can be given on the command line.

PYTHON ?= python3
# exec: no shell in between, so that whoever ends make ends what it started.
BOOTSTRAP = exec "$(PYTHON)" -I hematovision/bootstrap.py
BIN = .venv/bin

.PHONY: help run test test-all bench bench-quick bench-soak install lint types format lock clean

help:
	@echo "make run       start HematoVision on http://127.0.0.1:8000 (HOST=, PORT= override)"
	@echo "make test      all tests, on PostgreSQL and on SQLite"
	@echo "make test-all  the same with the long fault tests"
	@echo "make bench     how fast it is on this machine (bench-quick: in three minutes; bench-soak: mixed load for 20 minutes)"
	@echo "make lint      style, security, import rules, missing migrations; make types: mypy --strict"
	@echo "make format    put the code into shape"
	@echo "make lock      pin the newest allowed packages (needs uv)"
	@echo "make clean     remove .venv and caches; data in var/ stay"

run:
	@$(BOOTSTRAP) run

test:
	@$(BOOTSTRAP) test

test-all:
	@$(BOOTSTRAP) test-all

bench:
	@$(BOOTSTRAP) bench

bench-quick:
	@$(BOOTSTRAP) bench-quick

bench-soak:
	@$(BOOTSTRAP) bench-soak

install:
	@$(BOOTSTRAP) install

lint: install
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m bandit --quiet --recursive --configfile pyproject.toml accounts classifier hematovision ml clients manage.py
	$(BIN)/python -c "from importlinter.cli import lint_imports_command as run; run()"
	$(BIN)/python manage.py makemigrations --check --dry-run

types: install
	$(BIN)/python -m mypy --strict .

format: install
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

# The pins are first found for everything together, so that all the files agree with each other.
# ai-edge-litert asks for backports-strenum always and uses it on Python 3.10 only; its wheel refuses newer ones.
COMPILE = uv pip compile --quiet --universal --python-version 3.11.0 --generate-hashes --no-header --no-annotate \
	--override "$$work/override.txt" pyproject.toml
lock:
	@work=$$(mktemp -d) && trap 'rm -rf "$$work"' EXIT && set -e && \
	echo "backports-strenum ; python_version < '3.11'" > "$$work/override.txt" && \
	$(COMPILE) --extra web --extra worker --extra train --extra dev --extra s3 -o "$$work/all.txt" && \
	$(COMPILE) --extra web --extra worker --extra train -c "$$work/all.txt" -o requirements.txt && \
	$(COMPILE) --extra web -c "$$work/all.txt" -o requirements-web.txt && \
	$(COMPILE) --extra worker -c "$$work/all.txt" -o requirements-worker.txt && \
	$(COMPILE) --extra s3 -c "$$work/all.txt" -o requirements-s3.txt && \
	$(COMPILE) --extra dev -c "$$work/all.txt" -o requirements-dev.txt
	@echo "Pinned; make test says whether the new versions will do."

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
