# Two commands on a fresh machine with Python 3.11 to 3.14: `make run` starts the lab, `make test` checks it.
# For Windows README.md has the first as plain commands; the tests are for macOS and Linux.

PYTHON ?= python3
VENV ?= .venv

# Linux without an NVIDIA card: try PyTorch's own index first, whose CPU build saves several GB. If it cannot be
# reached, torch comes from the default index like everything else. `make run TORCH_INDEX=` never tries.
CPU_BUILDS = https://download.pytorch.org/whl/cpu
TORCH_INDEX ?= $(shell [ "$$(uname)" != Linux ] || command -v nvidia-smi >/dev/null || echo $(CPU_BUILDS))
TORCH = $(shell sed -n 's/^\(torch==[^ ]*\).*/\1/p' requirements.txt)

.PHONY: run test format

run: $(VENV)/installed
	$(VENV)/bin/streamlit run app.py

test: $(VENV)/installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pytest -n auto --maxprocesses 4 --dist loadgroup

format: $(VENV)/installed-dev
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# The stamps are newer than the requirements they were made from, so nothing is installed twice.
$(VENV)/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15) and \
		"Python is " + sys.version.split()[0] + "; the lab needs 3.11 to 3.14. Say where it is: make PYTHON=...")'
	@echo "Installing into $(VENV). This happens once and takes a few minutes."
	$(PYTHON) -m venv $(VENV)
ifneq ($(TORCH_INDEX),)
	-$(VENV)/bin/pip install --quiet --no-deps --retries 0 --timeout 10 --index-url $(TORCH_INDEX) $(TORCH)
endif
	$(VENV)/bin/pip install --quiet -r requirements.txt
	touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements-dev.txt
	$(VENV)/bin/pip install --quiet -r requirements-dev.txt
	touch $@
