VENV ?= .venv
TORCH_ARGS ?=
BIN := $(VENV)/bin

.PHONY: help install demo lint test test-fast docs clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /make \1|/' | column -t -s '|'
	@echo 'make TORCH_ARGS="--index-url https://..." ...   another build of torch, for torch alone'

$(VENV)/.installed: pyproject.toml constraints.txt scripts/install.sh
	VENV="$(VENV)" TORCH_ARGS="$(TORCH_ARGS)" bash scripts/install.sh
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt scripts/install.sh
	VENV="$(VENV)" TORCH_ARGS="$(TORCH_ARGS)" bash scripts/install.sh dev
	touch $(VENV)/.installed $@

install: $(VENV)/.installed  ## install into .venv

demo: $(VENV)/.installed  ## install into .venv and race six small models on text that every Python has
	$(BIN)/charcmp recommend dataset=pydocs budget=10k layers=1,2 minutes=2.5 results_dir=results/demo
	@echo
	@echo 'Next, your own text, at 50k parameters and in half an hour:'
	@echo '  $(BIN)/charcmp recommend my.txt'

lint: $(VENV)/.installed-dev  ## style, spelling, types, and which package may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint  ## lint, then all tests but those marked slow, cuda or browser
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

test-fast: $(VENV)/.installed-dev  ## the tests that start no processes and take seconds at most
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal -m 'not slow and not cuda and not browser and not long'

docs: $(VENV)/.installed-dev  ## the documents as a site, links checked: build/site/index.html
	$(BIN)/python scripts/build_docs.py

clean:  ## remove .venv and the demo's results
	rm -rf $(VENV) results/demo
