# make run    make .venv, install, and train the four runs of the README (GD and SD, eps 0 and 0.2)
# make test   the same environment with the development extras, then every check; of tests that take turns (tests/turns.py)
#             those of the commit, or with TURN=all every one
# Both leave an environment that is already right alone. PYTHON chooses the interpreter.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# The build of torch to install where there is none yet. Without an NVIDIA GPU: the CPU build, from
# wherever pip looks, else from PyTorch's own index; with one: pip's choice. A torch that the
# interpreter already has (a cluster's module, conda) is used as it is. TORCH=... overrides.
TORCH_CPU := torch==2.13.0+cpu
TORCH_INDEX := https://download.pytorch.org/whl/cpu
TORCH ?=
TURN ?= $(shell git rev-parse HEAD 2>/dev/null || echo none)

.PHONY: run test lint clean

run: .venv/.run
	$(BIN)/python -m robust_erm.train -m optimizer=gd,sd eps=0,0.2

test: lint
	$(BIN)/python -m pytest -n $$(( $$(nproc) + 2 )) --dist loadgroup --turn "$(TURN)"  # some wait for a cluster, not for a core

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf .venv

.venv/.run: .venv/.torch pyproject.toml
	$(PIP) -e .
	@touch $@

.venv/.dev: .venv/.torch pyproject.toml
	$(PIP) -e '.[dev]'
	$(PIP) --no-deps torchattacks==3.5.1  # what our attacks are held against; it would pin an old requests
	@touch $@ .venv/.run

.venv/.torch:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "robust-erm needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	@if $(PYTHON) -c 'import torch' 2>/dev/null; then \
	  echo "using the torch that $(PYTHON) has"; $(PYTHON) -m venv --system-site-packages .venv; \
	else $(PYTHON) -m venv .venv; fi
	@if ! $(BIN)/python -c 'import torch' 2>/dev/null; then \
	  if [ -n "$(TORCH)" ]; then $(PIP) "$(TORCH)"; \
	  elif [ "$$(uname -s)" != Linux ] || nvidia-smi -L 2>/dev/null | grep -q GPU; then $(PIP) torch; \
	  else $(PIP) "$(TORCH_CPU)" 2>/dev/null || $(PIP) "$(TORCH_CPU)" --extra-index-url $(TORCH_INDEX); fi; \
	fi
	@touch $@
