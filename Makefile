# Sets up and runs everything on a machine without a ROS installation; README says how it is done with one.
# Needs Linux x86-64, Python 3.11 to 3.13 with headers, a C and a C++ compiler; installs into $(VENV) only.
#   make venv | demo | test | lint | docs | bench | bench-gate | test-oldest | lock | clean | distclean

VENV := .venv
VENV_OLDEST := .venv-oldest
PYTHON_IN_VENV := $(VENV)/bin/python

# A stamp's name holds the hash of what it depends on: a new lock installs again, a fresh checkout's dates do not.
hash = $(shell cat $(1) | sha256sum | cut -c1-16)
MESSAGES := tools/build_messages/*.* tools/build_messages/packages/*/*.* tools/build_messages/packages/*/msg/*
SETUP := setup.py setup.cfg pyproject.toml $(sort $(wildcard tools/*.sh $(MESSAGES)))
RUNTIME := $(VENV)/installed-$(call hash,requirements.lock $(SETUP))
DEVELOPMENT := $(VENV)/installed-dev-$(call hash,requirements.lock requirements-dev.lock $(SETUP))
OLDEST := $(VENV_OLDEST)/installed-$(call hash,requirements-oldest.lock $(SETUP))

# The environment is complete in itself.  What a ROS process left (see tools/make_venv.sh), what a sourced ROS installation
# set, and the wish for a middleware that comes with no wheel would mix foreign libraries into it.
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE RMW_IMPLEMENTATION
ifdef AMENT_PREFIX_PATH
unexport AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH LD_LIBRARY_PATH PYTHONPATH
endif

.PHONY: venv demo test lint docs bench bench-gate test-oldest lock clean distclean

venv: $(RUNTIME)

# The check runs first and stops here on an unfit machine, before anything is installed.
$(RUNTIME):
	@python=$$(tools/check_machine.sh) && tools/make_venv.sh "$$python" $(VENV) requirements.lock
	@echo "compiling for this machine, which takes one to three minutes" >&2
	@$(PYTHON_IN_VENV) -m dsg_ros compile --into $(VENV)/share/dsg_ros/compiled || \
	    echo "not everything could be compiled; first starts take longer" >&2
	@rm -f $(VENV)/installed-*; touch $@

$(DEVELOPMENT): | $(RUNTIME)
	@tools/make_venv.sh $(PYTHON_IN_VENV) $(VENV) requirements-dev.lock
	@rm -f $(VENV)/installed-dev-*; touch $@

# NumPy 1.26 has no wheels for Python 3.13.
$(OLDEST):
	@python=$$(PYTHON="$${PYTHON:-python3.12 python3.11 python3}" tools/check_machine.sh) && \
	    tools/make_venv.sh "$$python" $(VENV_OLDEST) requirements-oldest.lock
	@rm -f $(VENV_OLDEST)/installed-*; touch $@

demo: $(RUNTIME)
	$(PYTHON_IN_VENV) -m dsg_ros demo --out out/demo

test: $(DEVELOPMENT)
	$(PYTHON_IN_VENV) -m pytest -n 2 --dist loadfile

test-oldest: $(OLDEST)
	$(VENV_OLDEST)/bin/python -m pytest

lint: $(DEVELOPMENT)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# API pages from the docstrings.
docs: $(DEVELOPMENT)
	$(PYTHON_IN_VENV) docs/api_pages.py build/docs

bench: $(DEVELOPMENT)
	$(PYTHON_IN_VENV) -m benchmarks

# What benchmarks/baseline.json holds, measured again: fails where it is worse, or missing.
bench-gate: $(DEVELOPMENT)
	$(PYTHON_IN_VENV) -m benchmarks --gate --no-peers

# Pin the newest releases anew.  One version of each package for every supported Python: what is tested is what is installed.
COMPILE := $(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest \
    --no-header --no-annotate --no-emit-index-url --upgrade
lock: $(RUNTIME)
	$(COMPILE) requirements.in -o requirements.lock
	$(COMPILE) requirements-dev.in -c requirements.lock -o requirements-dev.lock
	$(COMPILE) setup.py requirements-oldest.in --resolution lowest-direct -o requirements-oldest.lock
	$(COMPILE) tools/build_messages/requirements.in -c requirements.lock | grep -vxFf requirements.lock \
	    > tools/build_messages/requirements.lock

clean:
	rm -rf build install log out .pytest_cache .mypy_cache .ruff_cache .hypothesis

distclean: clean
	rm -rf $(VENV) $(VENV_OLDEST) *.egg-info
