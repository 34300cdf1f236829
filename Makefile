# Every target makes the virtual environment by itself, and mends it when pyproject.toml changes.
#   make demo    augment the bundled scenes and write a contact sheet
#   make test    the tests (under 12 minutes on two cores)
#   make soak    the long tests
#   make lint    ruff and mypy
#   make docs    write docs/help.md again
# PYTHON chooses the interpreter, VENV the environment's folder, and PIP_ARGS goes to pip (say,
# --extra-index-url and PyTorch's index of CPU builds, which saves gigabytes without an NVIDIA card).

PYTHON   ?= python3
VENV     ?= .venv
PIP_ARGS ?=
BIN      := $(VENV)/bin
# One torch thread: on a busy machine two are slower than one.
ONE_THREAD := OMP_NUM_THREADS=1

.PHONY: demo test soak lint docs
.DELETE_ON_ERROR:

demo: $(VENV)/.installed
	$(BIN)/hb-tta demo

test: $(VENV)/.installed
	$(ONE_THREAD) $(BIN)/python -m pytest -q

soak: $(VENV)/.installed
	$(ONE_THREAD) $(BIN)/python -m pytest -q -m soak

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.installed
	$(BIN)/python docs/make_help.py

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else "hb-tta needs Python 3.11 or newer, this is %d.%d; say which: make PYTHON=python3.12" % v[:2])'
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_ARGS) -e ".[dev]"
	touch $@
