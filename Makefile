# Without make (on Windows, for example), the same is: python -m utils COMMAND. See: python -m utils --help
PYTHON ?= python3
TASK ?= hands
PROFILE ?= quick

.PHONY: run test test-all notebooks report benchmark benchmark-models benchmark-growth benchmark-start-up soak fuzz
run:  # get the data, execute the notebooks of TASK=hands|tuning|mri|final|all; FROM=folder or archive of hands
	@$(PYTHON) -m utils run --task $(TASK) --profile $(PROFILE) $(if $(FROM),--from "$(FROM)")
test:  # the style, and the tests that take seconds
	@$(PYTHON) -m utils test
test-all:  # the tests that take long, which make test leaves out
	@$(PYTHON) -m utils test --slow
notebooks:  # execute the notebooks of TASK in place, in the profile full
	@$(PYTHON) -m utils notebooks --task $(TASK)
report:  # the executed notebooks as a static site, in site/
	@.venv/bin/python -m utils report
benchmark:  # the training step and the data path against plain recipes
	@.venv/bin/python -m benchmarks.training_step
benchmark-models:  # the speed of every model, against a plain loop and against the limit of the machine
	@.venv/bin/python -m benchmarks.models
benchmark-growth:  # time and memory against image size and number of images
	@.venv/bin/python -m benchmarks.growth
benchmark-start-up:  # how many seconds the imports of a notebook take, beyond torch
	@.venv/bin/python -m benchmarks.start_up
soak:  # trainings that are killed, run out of disk, or find damaged checkpoints
	@.venv/bin/python -m benchmarks.soak
fuzz:  # a million damaged files for all readers
	@.venv/bin/python -W ignore -m benchmarks.fuzz
