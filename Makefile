# Two commands are all: `make demo` and `make test`. `make help` lists the rest.
# Needs Python 3.11+, cmake, a C++ compiler and make; works on Linux and macOS (GNU make 3.81 is enough).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CXX_FOUND := $(shell command -v $${CXX:-c++} || command -v g++ || command -v clang++)

# llama-cpp-python compiles llama.cpp: use every core.
CMAKE_BUILD_PARALLEL_LEVEL ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)
export CMAKE_BUILD_PARALLEL_LEVEL
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1

.PHONY: help demo test check lint format install clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(STAMP)  ## the main job on the embedded model: prints the table and where the report is
	$(BIN)/promptopt run experiments/demo/experiment.yaml

test: $(STAMP)  ## the whole test suite
	$(BIN)/python -m pytest

check: lint test  ## what CI runs: ruff, mypy, import-linter, then the tests

lint: $(STAMP)  ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(STAMP)  ## let ruff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: $(STAMP)  ## make .venv with everything in it

# The stamp is written last, so an interrupted installation is taken up again.
$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "There is no $(PYTHON). Install Python 3.11 or newer, or name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is $$($(PYTHON) --version 2>&1); 3.11 or newer is needed. Name one: make PYTHON=python3.12" >&2; exit 1; }
	@command -v cmake >/dev/null || { echo "cmake is missing; llama.cpp is compiled with it. Install it: apt install cmake | dnf install cmake | brew install cmake" >&2; exit 1; }
	@test -n "$(CXX_FOUND)" || { echo "A C++ compiler is missing; llama.cpp is compiled with it. Install one: apt install g++ | dnf install gcc-c++ | xcode-select --install" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "$(PYTHON) cannot make virtual environments. Install its venv module: apt install python3-venv" >&2; exit 1; }
	@echo "Installing into $(VENV). The first time llama.cpp is compiled, on $(CMAKE_BUILD_PARALLEL_LEVEL) core(s): minutes. pip keeps the result."
	$(BIN)/python -m pip install --progress-bar off -c constraints.txt -e '.[all,dev]'
	$(BIN)/promptopt doctor --fetch-converter
	@touch $(STAMP)

clean:  ## remove the environment and caches; runs/ stays
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
