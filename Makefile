# What a developer types; `make` alone lists it. Every target sets up what it needs first.

VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
JOBS ?= 2
ARGS ?=
CODE := prefloop tests benchmarks  # what is ours in the checkout; what somebody tries out beside it is their own

.DEFAULT_GOAL := help
.PHONY: help setup test test-all test-peers lint docs demo bench bench-gpu stale

help:
	@echo "make setup     .venv with prefloop, its extras and the pinned versions; instant when nothing changed"
	@echo "                 PYTHON=python3.12    the interpreter to build on (3.11 or newer)"
	@echo "                 TORCH=cpu|default|'what pip install takes'    the build of PyTorch"
	@echo "make demo      the whole loop on the embedded world; ARGS='--out DIR --seed N'"
	@echo "make test      format, lint and every test a change needs; ARGS='tests/ops -k gae' for some, JOBS=N processes"
	@echo "make test-all  the same with the long studies and the chaos runs"
	@echo "make test-peers  our losses and TRL's on the same tensors, in an environment of its own (1.3 GB, made once)"
	@echo "make bench     side by side with the peers; NAME=reward_k9 for one (their environments: 3 GB, made once)"
	@echo "make bench-gpu   real shapes, where CUDA is"
	@echo "make lint      format, lint and types"
	@echo "make docs      writes docs/cli.md and docs/api.md anew from the code"

# .ready holds the folder it was made in, and is written last: an interrupted setup and a moved or copied checkout start over.
ifneq ($(shell test -x $(PY) && cat $(READY) 2>/dev/null),$(CURDIR))
STALE := stale
endif
ifneq ($(TORCH),)
ifneq ($(shell cat $(VENV)/.torch 2>/dev/null),$(TORCH))
STALE := stale
endif
endif
ifneq ($(PYTHON),)
WHICH := -c 'import sys; print(sys.base_prefix, sys.version)' 2>/dev/null
ifneq ($(shell $(PY) $(WHICH)),$(shell $(PYTHON) $(WHICH)))
STALE := stale
endif
endif

$(READY): pyproject.toml constraints.txt $(STALE)
	@sh setup.sh

setup: $(READY)
	@echo "setup: ready; 'make demo' shows the loop, 'make test' checks it, '$(VENV)/bin/prefloop doctor' looks at this machine"

demo: $(READY)
	$(VENV)/bin/prefloop demo $(ARGS)

test: $(READY)
	$(VENV)/bin/ruff check $(CODE)
	$(VENV)/bin/ruff format --check $(CODE)
	$(PY) -m pytest -n $(JOBS) --dist loadfile $(ARGS)

test-all: $(READY)
	$(VENV)/bin/ruff check $(CODE)
	$(VENV)/bin/ruff format --check $(CODE)
	$(PY) -m pytest -n $(JOBS) --dist loadfile --long $(ARGS)

test-peers: $(READY)
	$(PY) -m tests.peers $(ARGS)

bench: $(READY)
	$(PY) -m benchmarks $(NAME) $(ARGS)

bench-gpu: $(READY)
	$(PY) -m benchmarks.gpu $(ARGS)

lint: $(READY)
	$(VENV)/bin/ruff check $(CODE)
	$(VENV)/bin/ruff format --check $(CODE)
	$(VENV)/bin/pyright

docs: $(READY)
	$(PY) -m tests.regenerate_docs
