# `make test` and `make demo` need nothing but Python 3.11 or later: they set up .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# TensorFlow unless the environment says otherwise, and without its start-up notes.
export KERAS_BACKEND ?= tensorflow
export TF_CPP_MIN_LOG_LEVEL ?= 3
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help demo test mutants campaign lint format types docs bench gallery check clean
help:
	@echo "make demo    train on real digits and write demo-report/"
	@echo "make test    the tests, except the slow ones"
	@echo "make check   lint, types, test and docs, as before a commit"
	@echo "make mutants N=200   which small changes of the package no test notices"
	@echo "make campaign N=100  random models, each recomputed by a program of its own"
	@echo "make gallery published results by plain fit, into docs/gallery: minutes"
	@echo "make bench   ours against the rivals, into docs/benchmarks.md: minutes"
	@echo "make lint | format | types | docs | clean"

demo: $(VENV)/.user
	$(BIN)/keras-penalties demo --out demo-report

test: $(VENV)/.user
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal

# Outside CI: an hour or more. Which small changes of the package no test notices.
N ?= 200
SEED ?= $(shell date +%s)
mutants: $(VENV)/.mutants
	KERAS_BACKEND=jax PYTHONPATH=tests $(BIN)/python -m mutants --count $(N) --seed $(SEED)

# Outside CI: on KERAS_BACKEND, which is TensorFlow by default. See docs/campaign.md.
campaign: $(VENV)/.user
	PYTHONPATH=tests $(BIN)/python -m campaign --count $(N) --seed $(SEED)

lint: $(VENV)/.developer
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: $(VENV)/.developer
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: $(VENV)/.developer
	$(BIN)/mypy

docs: $(VENV)/.developer
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(VENV)/.bench
	$(BIN)/python benchmarks/run.py

# JAX is the fastest of the backends for nets as small as these.
gallery: $(VENV)/.gallery
	KERAS_BACKEND=jax $(BIN)/python docs/gallery/run.py

check: lint types test docs

clean:
	rm -rf $(VENV) build dist site demo-report *.egg-info

$(VENV)/.user: EXTRAS := tensorflow,demo,test
$(VENV)/.developer: EXTRAS := tensorflow,dev,docs
$(VENV)/.bench: EXTRAS := tensorflow,jax,bench
$(VENV)/.mutants: EXTRAS := jax,demo,test
$(VENV)/.gallery: EXTRAS := jax,gallery
$(VENV)/.user $(VENV)/.developer $(VENV)/.bench $(VENV)/.mutants \
  $(VENV)/.gallery: pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit( \
	  f"Python 3.11 or later is needed, {v[0]}.{v[1]} is here: make PYTHON=python3.12")'
	@echo 'Setting up $(VENV) for [$(EXTRAS)]: this takes minutes, once.'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	@touch $@
