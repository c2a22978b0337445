# make book          the book, executed and rendered, in _build/html
# make serve         shows it at http://localhost:8000
# make test          style, then all Python tests with coverage
# make browser-test  the rendered pages in a headless Chromium (needs node, npm, chromium, and `make book` before)
# make timings       executes every chapter anew and keeps the measured times in data/timings.json
# make clean         removes what was built; the virtual environment stays
#
# Variables, as in `make book PROFILE=short DEVICE=cuda`:
#   PYTHON           a Python 3.11 or 3.12, for the virtual environment
#   PROFILE          smoke, short or paper
#   SEED, DEVICE     DEVICE is auto, cpu or cuda
#   FORCE=1          executes again what has not changed
#   REPOSITORY_URL   where the sources are public (and BRANCH there): launch and repository buttons appear
#   PORT             of `make serve`
PYTHON ?= python3
PROFILE ?= smoke
SEED ?= 0
DEVICE ?= auto
FORCE ?=
REPOSITORY_URL ?=
BRANCH ?= main
PORT ?= 8000
unexport PYTHON

VENV := .venv
RUN := $(VENV)/bin/python

.DELETE_ON_ERROR:
.PHONY: book serve test lint browser-test timings install assets clean

book: install assets
	@$(RUN) -m tools.execute --profile "$(PROFILE)" --seed "$(SEED)" --device "$(DEVICE)" \
	  $(if $(FORCE),--force)
	@$(RUN) -m tools.build --repository-url "$(REPOSITORY_URL)" --branch "$(BRANCH)"

serve:
	@test -f _build/html/index.html || { echo "There is no book yet: run make book first."; exit 1; }
	@echo "The book is at http://localhost:$(PORT)/ (Ctrl+C ends it)"
	@$(RUN) -m http.server --bind 127.0.0.1 --directory _build/html "$(PORT)"

test: lint
	@$(RUN) -m pytest

lint: install
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .

browser-test: assets
	@test -f _build/html/index.html || { echo "There is no book yet: run make book first."; exit 1; }
	@npm test --silent

timings: install
	@$(RUN) -m tools.execute --profile "$(PROFILE)" --seed "$(SEED)" --device "$(DEVICE)" --force
	@$(RUN) -m tools.timings

install: $(VENV)/installed.txt

# The copy of requirements.txt says what is installed. The .pth file lets a notebook in any folder import lib.
$(VENV)/installed.txt: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or 3.12 is needed: make PYTHON=python3.12 ...")'
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	@echo "installing the requirements into $(VENV)"
	@$(RUN) -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	@$(RUN) -c 'import sysconfig, pathlib; \
	  pathlib.Path(sysconfig.get_path("purelib"), "networks-that-remember.pth").write_text("$(CURDIR)\n")'
	@cp requirements.txt $@

# Third-party JavaScript: MathJax for the pages, and what drives the browser in the tests. Without npm the book does without.
assets:
	@if ! command -v npm > /dev/null; then \
	  echo "npm is not here: no third-party JavaScript is fetched."; \
	elif ! cmp -s package-lock.json node_modules/.installed-lock.json; then \
	  npm ci --ignore-scripts --no-audit --no-fund --silent && cp package-lock.json node_modules/.installed-lock.json \
	  || echo "npm could not fetch the third-party JavaScript."; \
	fi

clean:
	rm -rf _build .pytest_cache .ruff_cache .hypothesis .coverage htmlcov
