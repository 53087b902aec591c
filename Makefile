# Thin on purpose: the same on Windows, without make, is `python -m utils run` and `python -m utils test`.
PYTHON ?= python3
TASK ?= hands
PROFILE ?= quick

.PHONY: run test notebooks benchmark benchmark-models benchmark-growth benchmark-start-up soak fuzz report
run:
	@$(PYTHON) -m utils run --task $(TASK) --profile $(PROFILE) $(if $(FROM),--from "$(FROM)")
test:
	@$(PYTHON) -m utils test
notebooks:  # executes the committed notebooks in place, profile full
	@$(PYTHON) -m utils notebooks --task $(TASK)
benchmark:
	@.venv/bin/python -m benchmarks.training_step
benchmark-models:  # every model's speed, against a plain loop and what the machine can do
	@.venv/bin/python -m benchmarks.models
benchmark-growth:  # cost against image size and data size
	@.venv/bin/python -m benchmarks.growth
benchmark-start-up:  # seconds that the notebooks import for, beyond torch
	@.venv/bin/python -m benchmarks.start_up
soak:  # trainings that are killed, starved of disk and given damaged checkpoints
	@.venv/bin/python -m benchmarks.soak
fuzz:  # a million damaged files, for every reader
	@.venv/bin/python -W ignore -m benchmarks.fuzz
report:  # the executed notebooks as one static site, in site/
	@.venv/bin/python -m utils.report
