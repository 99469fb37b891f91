# `make demo` and `make test` do everything on a fresh machine: they create .venv first.
.PHONY: demo demo-consortium demo-report test coverage explore check format base clean
.DEFAULT_GOAL := demo

PYTHON ?= python3
# Which tests `make explore` runs.
K ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1
export HF_HUB_OFFLINE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(READY)
	$(BIN)/rainhill simulate demo

# A coordinator and three hospitals as processes on this machine, from keys to the last round; Ctrl-C ends them all.
demo-consortium: $(READY)
	$(BIN)/rainhill rehearse

# The model that drafts reports, adapted to hospitals that write and film otherwise than the one it comes from.
demo-report: $(READY)
	$(BIN)/rainhill simulate reporting

# One torch thread each: threads that wait for one another on shared cores cost more than they give. A worker more than the two cores of a
# small machine, because many tests wait for a process, a deadline or an alarm. A file's tests stay with one worker, so that what they share
# is set up once.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

# The same, and how much of the code it goes through, which takes longer.
coverage: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder --cov --cov-report=term --cov-fail-under=90

# The laws again, with examples that no run has seen yet.
explore: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder --hypothesis-profile explore -k "$(K)"

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Trains the embedded base models anew, from phantoms of their source hospitals.
base: $(READY)
	$(BIN)/python -m sites.pretrain --out client/models/weights/thorax_tiny
	$(BIN)/python -m sites.pretrain_report --out client/models/weights/draft_tiny

clean:
	rm -rf $(VENV) runs .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
