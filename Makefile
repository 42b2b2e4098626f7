# `make demo` shows what the template makes; `make test` proves it.
UV := $(or $(shell command -v uv 2>/dev/null),.uv/bin/uv)
RUN := $(UV) run --no-sync
READY := .venv/.ready
DEMO := build/demo
unexport VIRTUAL_ENV

.DEFAULT_GOAL := help
.PHONY: help demo diff cli test test-full test-releases check release release-candidate clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' Makefile

# An ordinary render; packages and caches of an earlier run stay, its tables do not.
demo: $(READY) ## Render the defaults into build/demo/ and replay a year there
	@mkdir -p $(DEMO)
	@find $(DEMO) -mindepth 1 -maxdepth 1 ! -name .venv ! -name .local ! -name uv.lock -exec rm -rf {} +
	$(RUN) copier copy --defaults --quiet --vcs-ref HEAD . $(DEMO)
	$(MAKE) --no-print-directory -C $(DEMO) UV="$(abspath $(UV))" lifecycle ARGS=--fresh

# Files in the working tree that are not committed yet count too.
diff: $(READY) ## What a change does to the rendered defaults, since BASE (origin/main); DIFF=file
	@rm -rf build/diff
	$(RUN) copier copy --defaults --quiet --vcs-ref $(or $(BASE),origin/main) $(ARGS) . build/diff/before
	$(RUN) copier copy --defaults --quiet --vcs-ref HEAD $(ARGS) . build/diff/after 2>/dev/null
	@rm build/diff/*/.copier-answers.yml
	@cd build/diff && { git --no-pager diff --no-index --find-renames --stat --patch before after && echo "Nothing changes." || test $$? = 1; } $(if $(DIFF),> "$(abspath $(DIFF))")

# Both come from the CLI's Go module, and stay out of the repository: its licence is not ours.
CLI_VERSION := $(shell sed -n 's/^  cli_exact: "\(.*\)"/\1/p' hooks/versions.yml)
cli: .cli/databricks ## Build the Databricks CLI and its stand-in for a workspace, for tests/test_cli.py

.cli/databricks: tests/workspace/main.go hooks/versions.yml
	@command -v go >/dev/null || { echo 'error: Go is not on PATH. Fix: install Go 1.26 or newer' >&2; exit 1; }
	@rm -rf .cli && mkdir -p .cli/source && cp tests/workspace/main.go .cli/source
	cd .cli/source && go mod init workspace && go mod edit -require github.com/databricks/cli@v$(CLI_VERSION)
	cd .cli/source && go build -mod=mod -o ../workspace .
	cd .cli/source && go build -mod=mod -o ../databricks \
		-ldflags "-X github.com/databricks/cli/internal/build.buildVersion=$(CLI_VERSION)" github.com/databricks/cli

test: $(READY) ## The tests CI runs
	$(RUN) pytest $(ARGS)

test-full: $(READY) ## Those and the slow ones; some want Chromium
	$(UV) sync --quiet --group browser
	$(RUN) pytest -m "" $(ARGS)

test-releases: $(READY) ## Update projects of every release to the working tree
	$(RUN) pytest tests/test_releases.py

release: ## Tag and record a release: make release VERSION=0.2.0
	@python3 scripts/release.py "$(VERSION)"

release-candidate: ## Choose the commit of a release that is not tagged: VERSION=0.1.0 COMMIT=HEAD
	@test -n "$(COMMIT)" || { echo 'Which commit? Fix: COMMIT=HEAD' >&2; exit 2; }
	@python3 scripts/release.py "$(VERSION)" --candidate "$(COMMIT)"

check: $(READY) ## Lint and format of this repository's own code
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) zizmor --offline --no-progress --quiet --persona=pedantic .github
	$(RUN) actionlint

clean: ## Remove everything the targets above made
	rm -rf build .cli .venv .uv .pytest_cache .ruff_cache
	find tests -name __pycache__ -prune -exec rm -rf {} +

$(READY): pyproject.toml | $(filter .uv/bin/uv,$(UV))
	$(UV) sync --quiet
	@touch $@

.uv/bin/uv:
	python3 -m venv .uv
	.uv/bin/python -m pip install --quiet --disable-pip-version-check "uv>=0.8,<1"
