# Thin over scripts/*.sh, which say or install what is missing. `make` lists the targets.
.PHONY: help demo test lint format fuzz faults nemesis sim golden clean

help:            ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 16

demo:            ## show it at work: simulated devices, brokers, readers, for 20 s
	@scripts/demo.sh $(DEMO)

test:            ## install what the tests need, then run every check and test
	@scripts/test.sh $(PYTEST)

lint:            ## ruff, formatting, mypy --strict, import arrows
	@scripts/lint.sh

format:          ## format the code
	@scripts/venv.sh test
	@.venv/bin/ruff check --quiet --fix . ; .venv/bin/ruff format .

fuzz:            ## feed every decoder changed inputs for minutes under a memory ceiling
	@scripts/venv.sh test
	@.venv/bin/python -m pytest tests/fuzz --long --timeout 3600 $(PYTEST)

faults:          ## kill, stop and starve real processes for minutes
	@scripts/packages.sh
	@scripts/venv.sh test
	@.venv/bin/python -m pytest tests/faults --long --timeout 3600 $(PYTEST)

nemesis:         ## a random mix of faults on real processes: SECONDS=3600 SEED=
	@scripts/venv.sh test
	@.venv/bin/python -m pytest tests/faults/test_nemesis.py -s --timeout 0 --nemesis-seconds $(or $(SECONDS),3600) \
	    $(addprefix --nemesis-seed ,$(SEED)) $(PYTEST)

sim:             ## simulate clusters under misfortune: SEEDS=0-5000
	@scripts/venv.sh test
	@.venv/bin/python -m tests.simulation $(SEEDS)

golden:          ## write the golden files anew; review them as a diff
	@scripts/venv.sh test
	@.venv/bin/python -m pytest tests --regenerate-golden -q -k golden
	@git diff --stat -- tests

clean:           ## remove the virtual environment and all caches
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
