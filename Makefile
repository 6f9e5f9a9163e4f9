# make help        what there is to do
# make reproduce   the study of the paper, from training to reports/index.html
PYTHON  ?= python3
PROFILE ?= full
PY      := .venv/bin/python
STAMP   := .venv/.installed
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))

.DEFAULT_GOAL := help
.PHONY: help install reproduce test lab format clean

help:
	@echo "make install                   create .venv and install requirements.txt (2 to 5 minutes, once)"
	@echo "make reproduce                 train, test, audit and report everything: reports/index.html"
	@echo "make reproduce PROFILE=quick   the same with one seed and fewer days"
	@echo "make test                      all tests"
	@echo "make lab                       JupyterLab with the notebooks"
	@echo "make format                    ruff, and notebooks without outputs"
	@echo "make clean                     remove caches (reports/ and data/ stay)"
	@echo "PYTHON=python3.12 chooses the interpreter that .venv is made with (3.11 or newer)"

install: $(STAMP)

# The stamp is written last: an environment without it was interrupted and is made again.
$(STAMP): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is missing or older than 3.11; name a newer one: make install PYTHON=python3.12"; exit 1; }
	@if [ ! -e $(STAMP) ]; then rm -rf .venv; \
	  $(PYTHON) -m venv .venv >.venv.log 2>&1 \
	    || { rm -rf .venv; $(PYTHON) -m virtualenv -q .venv >>.venv.log 2>&1; } \
	    || { rm -rf .venv; virtualenv -q -p $(PYTHON) .venv >>.venv.log 2>&1; } \
	    || { cat .venv.log; rm -rf .venv .venv.log; \
	         echo "No virtual environment could be made. On Debian or Ubuntu: apt-get install python3-venv"; exit 1; }; \
	  rm -f .venv.log; fi
	@echo "Installing requirements.txt into .venv (2 to 5 minutes, quietly) ..."
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $(STAMP)
	@echo "Installed."

reproduce: $(STAMP)
	@$(PY) -m amarl_core.batch reproduce --profile $(PROFILE)

test: $(STAMP)
	@$(PY) -m pytest -q -rs --durations=5

lab: $(STAMP)
	@$(PY) -m jupyterlab --notebook-dir=. --LabApp.default_url=/lab/tree/notebooks

format: $(STAMP)
	@$(PY) -m ruff check --fix --quiet amarl_core tests || true
	@$(PY) -m ruff format --quiet amarl_core tests
	@$(PY) -m nbconvert --log-level=WARN --clear-output --inplace notebooks/*.ipynb

clean:
	@rm -rf .pytest_cache .ruff_cache .hypothesis .cache
	@find . -path ./.venv -prune -o -name __pycache__ -type d -print0 | xargs -0 -r rm -rf
