# Every target makes the virtual environment by itself, and mends it when pyproject.toml or
# constraints.txt changes.
#   make demo         tell the method on bundled questions, on one page
#   make test         the tests (under 7 minutes on two cores); TESTS="tests/test_cli.py" for some
#   make soak         the long tests
#   make fuzz         hostile inputs by the thousand (minutes); FUZZ="images --count 500" for some
#   make lint         ruff and mypy
#   make docs         write docs/help.md again
#   make pictures     make the README's pictures again (minutes; needs Chromium)
#   make constraints  write constraints.txt again: today's newest versions that fit each other
#   make test-scale   a store on an S3 server, and a Ray cluster, of this machine (minutes)
#   make harnesses    VLMEvalKit and inspect_ai, which no other environment has (minutes)
#   make test-newest  the tests with the newest versions that pyproject.toml allows
#   make test-lowest  the tests with the lowest ones
# PYTHON chooses the interpreter, VENV the environment's folder, JOBS the processes of the tests, and
# PIP_ARGS goes to pip (say, --extra-index-url and PyTorch's index of CPU builds, which saves
# gigabytes without an NVIDIA card).

PYTHON   ?= python3
VENV     ?= .venv
PIP_ARGS ?=
EXTRAS   ?= dev
TESTS    ?=
FUZZ     ?=
JOBS     ?= 2
BIN      := $(VENV)/bin
# Which versions: somebody else's release must not break a fresh environment. The variables reach
# what pip builds packages with (the first with pip before 25.3, the second with later ones).
VERSIONS := -c constraints.txt
BUILD_VERSIONS := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt
# One torch thread a process: on a busy machine two are slower than one.
ONE_THREAD := OMP_NUM_THREADS=1

.PHONY: demo test soak fuzz lint docs pictures constraints test-scale harnesses test-newest \
    test-lowest
.DELETE_ON_ERROR:

demo: $(VENV)/.installed
	$(BIN)/hb-tta demo

test: $(VENV)/.installed
	$(ONE_THREAD) $(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal $(TESTS)

soak: $(VENV)/.installed
	$(ONE_THREAD) $(BIN)/python -m pytest -q -m soak $(TESTS)

fuzz: $(VENV)/.installed
	PYTHONPATH=tests $(BIN)/python -m fuzz --jobs $(JOBS) $(FUZZ)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python .ci/typecheck.py

docs: $(VENV)/.installed
	$(BIN)/python docs/make_help.py

pictures: $(VENV)/.installed
	$(ONE_THREAD) $(BIN)/python docs/make_pictures.py

constraints:
	$(PYTHON) .ci/constraints.py $(PIP_ARGS)

# An S3 client, a server of its own, and Ray: for few.
test-scale:
	$(MAKE) test VENV=.venv-scale EXTRAS=dev,scale JOBS=1 TESTS="$(or $(TESTS),tests/test_s3.py tests/test_ray.py)"

# VLMEvalKit and lmms-eval want two versions of one package, inspect_ai an older one of another.
harnesses:
	mkdir -p .venv-harnesses
	grep -vE '^(antlr4-python3-runtime|fsspec)==' constraints.txt > .venv-harnesses/constraints.txt
	$(MAKE) test VENV=.venv-harnesses EXTRAS=harnesses JOBS=1 \
	    VERSIONS="-c .venv-harnesses/constraints.txt" BUILD_VERSIONS= \
	    TESTS="$(or $(TESTS),tests/test_vlmevalkit.py tests/test_inspect_ai.py)"

# Newest and lowest have environments of their own. The newest is looked for every time.
test-newest:
	rm -f .venv-newest/.installed
	$(MAKE) test VENV=.venv-newest VERSIONS="--upgrade --upgrade-strategy eager" BUILD_VERSIONS=

test-lowest:
	mkdir -p .venv-lowest
	$(PYTHON) .ci/lowest.py > .venv-lowest/constraints.txt
	$(MAKE) test VENV=.venv-lowest VERSIONS="-c .venv-lowest/constraints.txt" BUILD_VERSIONS=

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else "hb-tta needs Python 3.11 or newer, this is %d.%d; say which: make PYTHON=python3.12" % v[:2])'
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	$(BUILD_VERSIONS) $(BIN)/python -m pip install $(PIP_ARGS) $(VERSIONS) -e ".[$(EXTRAS)]"
	touch $@
