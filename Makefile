# make demo [CLIP=my.mp4]   encode a clip, decode every level, measure, show
# make test                 style, types, tests
# make gpu [GPU_DATA=..]    on a machine with an NVIDIA GPU: its tests, then the speed table
#
# The first two install what they need into .venv, with the versions of constraints.txt, once.  `make gpu` installs
# nothing and takes the Python that it finds, with the torch and Triton which that has.

PYTHON ?= python3
CLIP ?=
GPU_DATA ?=

VENV := .venv
RUN := $(VENV)/bin/python
INSTALL := $(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

.PHONY: demo test lint types gpu clean

demo: $(VENV)/installed
	$(RUN) tools/demo.py $(if $(CLIP),--clip '$(CLIP)')

test: lint types
	$(RUN) -m pytest

lint: $(VENV)/installed-for-tests
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check

types: $(VENV)/installed-for-tests
	$(RUN) -m mypy

gpu:
	@GPU_DATA='$(GPU_DATA)' $(PYTHON) benchmarks/gpu.py

clean:
	rm -rf $(VENV) demo build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@echo 'installing P-GSVC and what it needs into $(VENV); the first time takes some minutes'
	$(INSTALL) .
	touch $@

$(VENV)/installed-for-tests: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@echo 'installing P-GSVC and what its tests need into $(VENV); the first time takes some minutes'
	$(INSTALL) '.[test]'
	touch $(VENV)/installed $@
