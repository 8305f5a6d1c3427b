# make demo   install into .venv and run the main job on text that every Python has
# make test   install into .venv, then lint, types and tests
# make TORCH_ARGS="--index-url https://..." ...   another build of torch, for torch alone

VENV ?= .venv
TORCH_ARGS ?=
BIN := $(VENV)/bin

.PHONY: demo test clean

$(VENV)/.installed: pyproject.toml constraints.txt scripts/install.sh
	VENV="$(VENV)" TORCH_ARGS="$(TORCH_ARGS)" bash scripts/install.sh
	touch $@

demo: $(VENV)/.installed
	$(BIN)/charcmp sweep experiment=demo results_dir=results/demo
	$(BIN)/charcmp report results_dir=results/demo
	@echo
	@echo 'Next: your own text, every cell and depth at 50k parameters (add epochs=5 for a first look):'
	@echo '  $(BIN)/charcmp sweep dataset=text dataset.path=my.txt budget=50k'
	@echo '  $(BIN)/charcmp report dataset=text'

test: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --numprocesses auto

clean:
	rm -rf $(VENV) results/demo
