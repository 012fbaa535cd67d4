# Three commands matter: `make demo`, `make check` and `make test`. Each builds the environment first where it is missing.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# As many processes as cores, at most eight; each with one thread, or they wait for one another.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8

# Where `make sweep` renders the simulated street panoramas.
VIEWS  ?= data/cache/vigor_small

.PHONY: demo check test lab sweep notebooks slides report lint types format hooks clean
.DEFAULT_GOAL := demo

# The recorded run on fewer queries, in the town that is unseen.
DEMO := dense --trained data/dense --set test_queries=300 --set 'protocols=["cross_area"]'

demo: $(VENV)/.ready  ## the main job: search a town never seen, locate a strip; SCENE=folder trains and searches on your data
	$(BIN)/sarmatch run $(if $(SCENE),own --scene "$(SCENE)",$(DEMO))
	$(if $(SCENE),,$(BIN)/sarmatch example build/demo)
	$(if $(SCENE),,$(BIN)/sarmatch locate build/demo/strip.tif build/demo/map.tif --pixel-size 0.5 -o build/demo/fix.geojson)

check: $(VENV)/.ready lint types  ## before a commit, two minutes: lint, types, doctests, the fast tests
	$(PYTEST) -m "not slow and not notebook"

test: $(VENV)/.ready lint types  ## the whole: lint, types, doctests, every test, every notebook in the quick profile
	$(PYTEST) -m "not notebook"
	$(PYTEST) -m notebook

lab: $(VENV)/.ready  ## JupyterLab at the first notebook
	$(BIN)/jupyter lab notebooks/00_start_here.ipynb

sweep: $(VENV)/.ready  ## the comparisons behind the tables, hours on a CPU; resumes; REAL=folder for the real one, IMAGENET=1 with the extra `pretrained`
	for name in checkpoints alignment alignment_dense one_look_direction questions; \
		do $(BIN)/sarmatch sweep $$name || exit; done
	for name in dense_choices dense_networks; do $(BIN)/sarmatch sweep $$name || exit; done
	$(BIN)/sarmatch poses data/dense data/results/poses --scene easy --scene standard --scene hard
	$(if $(IMAGENET),for name in pretrained pretrained_dense; do $(BIN)/sarmatch sweep $$name || exit; done)
	$(BIN)/sarmatch sweep systems_standard
	for name in saig optimisers cmpc modalities vigor; do $(BIN)/sarmatch sweep systems_ablations_$$name || exit; done
	$(BIN)/sarmatch simulate --crossview vigor_small "$(VIEWS)"
	$(BIN)/sarmatch simulate --crossview vigor_small_unknown_heading "$(VIEWS)_unknown_heading"
	for name in panorama_same_area panorama_cross_area heading; \
		do $(BIN)/sarmatch sweep systems_$$name --scene "$(VIEWS)" || exit; done
	$(BIN)/sarmatch refine refinement_easy
	$(BIN)/sarmatch refine refinement_standard
	$(BIN)/sarmatch refine lengths_easy
	$(BIN)/sarmatch refine lengths_standard
	$(BIN)/sarmatch refine peaks_standard
	$(if $(REAL),$(BIN)/sarmatch sweep alignment_sentinel --scene "$(REAL)")
	$(if $(REAL),$(BIN)/sarmatch sweep systems_sentinel --scene "$(REAL)")

notebooks: $(VENV)/.ready  ## execute the notebooks and keep their outputs (what is committed)
	$(BIN)/sarmatch notebooks

slides: $(VENV)/.ready  ## slides of the notebooks, under build/slides; NOTEBOOKS="notebooks/00*.ipynb" takes some of them
	$(BIN)/sarmatch slides $(NOTEBOOKS)

report: $(VENV)/.ready  ## one page of the notebooks with contents, build/report.html; NOTEBOOKS as above
	$(BIN)/sarmatch report $(NOTEBOOKS)

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.ready
	$(BIN)/mypy

format: $(VENV)/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

hooks: $(VENV)/.ready  ## lint, format, notebooks' metadata and types at every commit
	$(BIN)/pre-commit install

clean:
	rm -rf $(VENV) runs data/cache build *.egg-info .mypy_cache .ruff_cache

$(VENV)/.ready: pyproject.toml constraints.txt .ci/install.py
	$(PYTHON) .ci/install.py $(VENV)
	touch $@
