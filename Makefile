# Two commands matter: `make demo` and `make test`. Both build the environment first where it is missing.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: demo test lab sweep notebooks lint format clean
.DEFAULT_GOAL := demo

demo: $(VENV)/.ready  ## the main job: train, search, report; on your data with SCENE=folder
	$(BIN)/sarmatch run demo $(if $(SCENE),--scene "$(SCENE)")

test: $(VENV)/.ready lint  ## lint, tests, every notebook in the quick profile
	$(BIN)/python -m pytest

lab: $(VENV)/.ready  ## JupyterLab at the first notebook
	$(BIN)/jupyter lab notebooks/00_start_here.ipynb

sweep: $(VENV)/.ready  ## the comparisons behind the tables, hours on a CPU; resumes; REAL=folder for the real one
	$(BIN)/sarmatch sweep alignment
	$(BIN)/sarmatch sweep questions
	$(BIN)/sarmatch sweep weights
	$(BIN)/sarmatch refine refinement_easy
	$(BIN)/sarmatch refine refinement_standard
	$(BIN)/sarmatch refine lengths_easy
	$(BIN)/sarmatch refine lengths_standard
	$(if $(REAL),$(BIN)/sarmatch sweep alignment_sentinel --scene "$(REAL)")

notebooks: $(VENV)/.ready  ## execute the notebooks and keep their outputs (what is committed)
	$(BIN)/sarmatch notebooks

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) runs data/cache build *.egg-info

$(VENV)/.ready: pyproject.toml constraints.txt .ci/install.py
	$(PYTHON) .ci/install.py $(VENV)
	touch $@
