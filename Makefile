# The two commands: `make demo` and `make test`. Each sets up what it needs first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Another torch, for example a GPU build: make setup TORCH="torch==2.13.0 --index-url ADDRESS"
TORCH ?=
DEMO_HOME ?= .stillhouse

.PHONY: help setup demo test test-faults test-light test-operate test-scale lint style format clean lock recipes bench

help:
	@echo "make demo         real tweets to a registered small model, then a prediction"
	@echo "make test         lint, types, layers and all quick tests"
	@echo "make test-faults  random kills of whole runs, and of each server in the middle of each flow (about 12 minutes)"
	@echo "make test-light   the demo's model in an environment without torch and stillhouse"
	@echo "make test-operate real servers of \`up\`, a real worker, a real browser (about 20 minutes)"
	@echo "make test-scale   ten runs at once against the servers of \`up\`"
	@echo "make lint         ruff, pyright, import-linter"
	@echo "make recipes      the news and entities recipes in full"
	@echo "make setup        the environment alone; TORCH=... for another torch"
	@echo "make format       mend what ruff can mend"
	@echo "make lock         pin what the environment holds"
	@echo "make bench        all benchmarks (hours, a quiet machine); make bench-NAME one"
	@echo "make clean        remove the environment, caches and the demo's state"

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	@echo "installing the locked requirements into $(VENV) (a few minutes the first time)"
	@if [ -n "$(TORCH)" ]; then \
		$(BIN)/pip install -qq $(TORCH) && grep -v '^torch==' requirements.lock > $(VENV)/lock.txt; \
	else cp requirements.lock $(VENV)/lock.txt; fi
	@$(BIN)/pip install -qq --use-pep517 -r $(VENV)/lock.txt
	@$(BIN)/pip install -qq --no-deps --no-build-isolation -e .
	@touch $(READY)

demo: setup
	STILLHOUSE_HOME=$(DEMO_HOME) $(BIN)/stillhouse run opinions
	STILLHOUSE_HOME=$(DEMO_HOME) $(BIN)/stillhouse predict opinions "Lost my bag again and nobody answers the phone."

# pyright runs beside the tests, which wait a lot; bytecode is written first, because they start hundreds of processes.
test: style
	@$(BIN)/python -m compileall -q flows tasks pipelines stillhouse
	@$(BIN)/pyright > $(VENV)/pyright.log 2>&1 & types=$$!; \
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2 --dist loadscope --no-loadscope-reorder --durations 15; \
	tests=$$?; wait $$types; types=$$?; cat $(VENV)/pyright.log; exit $$((tests + types))

test-faults: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n 2 tests/faults/test_random_kills.py
	$(BIN)/python -m pytest -m slow -n 0 tests/faults/test_server_kills.py

test-light: demo
	DEMO_HOME=$(DEMO_HOME) $(BIN)/python -m pytest -m slow -rP tests/end_to_end/test_light_environment.py

# One process: the tests share one `up`.
test-operate: setup
	@command -v chromium > /dev/null || echo "without chromium (apt-get install chromium) the tests of pages are skipped"
	$(BIN)/python -m pytest -m slow -n 0 --durations 15 tests/operate

test-scale: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n 0 -rP tests/scale

lint: style
	$(BIN)/pyright

style: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

recipes: setup
	$(BIN)/python benchmarks/recipes.py

bench: setup
	$(BIN)/python -m benchmarks

bench-%: setup
	$(BIN)/python -m benchmarks $*

lock: setup
	$(BIN)/pip freeze --exclude-editable --exclude stillhouse | sed 's/^\(torch==[0-9.]*\)+.*/\1/' > requirements.lock

clean:
	rm -rf $(VENV) .stillhouse .pytest_cache .ruff_cache .hypothesis .import_linter_cache dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
