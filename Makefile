# Without make (for example on Windows), use: python -m utils COMMAND. See: python -m utils --help
PYTHON ?= python3
TASK ?= hands
PROFILE ?= quick
MINUTES ?= 8
TRAIN ?= hands,classifier,heads,final
OUT ?= runs/gpu

.PHONY: run test test-all notebooks report benchmark benchmark-models benchmark-labels benchmark-growth benchmark-start-up gpu soak fuzz
run:  # get the data and execute the notebooks of TASK=hands|tuning|mri|final|all; FROM=folder or archive of hands
	@$(PYTHON) -m utils run --task $(TASK) --profile $(PROFILE) $(if $(FROM),--from "$(FROM)")
test:  # check the style, and run the tests of the code and of every notebook; a few minutes
	@$(PYTHON) -m utils test
test-all:  # run the tests that take long; make test does not run them
	@$(PYTHON) -m utils test --slow
notebooks:  # execute the notebooks of TASK in place, in the profile full
	@$(PYTHON) -m utils notebooks --task $(TASK)
report:  # make a static site from the executed notebooks, in site/
	@.venv/bin/python -m utils report
benchmark:  # the speed of a training step and of reading data, compared with plain recipes
	@.venv/bin/python -m benchmarks.training_step
benchmark-models:  # the speed of every model, compared with a plain loop and with the limit of the machine
	@.venv/bin/python -m benchmarks.models
benchmark-labels:  # coursework 2 from nothing to the labels, beside a plain ResNet-18
	@.venv/bin/python -m benchmarks.hand_labels
benchmark-growth:  # time and memory for different image sizes and numbers of images
	@.venv/bin/python -m benchmarks.growth
benchmark-start-up:  # how long the imports of each notebook take, without torch
	@.venv/bin/python -m benchmarks.start_up
gpu:  # on a GPU: its tests, the notebooks of TRAIN and tables of the speed, in MINUTES; archives of the trainings in OUT
	@$(or $(wildcard .venv/bin/python),$(PYTHON)) -m benchmarks.gpu --minutes $(MINUTES) --train $(TRAIN) --out $(OUT)
soak:  # kill trainings, fill the disk, damage checkpoints, and check the results
	@.venv/bin/python -m benchmarks.soak
fuzz:  # give a million damaged files to all readers
	@.venv/bin/python -W ignore -m benchmarks.fuzz
