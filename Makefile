# pandalite's commands. Each does the set-up it needs; nothing has to be typed.
#
#   make demo            boot a Linux guest inside Python and count its blocks
#   make test            run all tests
#   make core ARCH=...   build the core library (all architectures without ARCH)
#   make guests          build the tiny guests of GUESTS
#   make test-guests     build all tiny guests, and boot and use each
#   make debian-guests   build the fuller guests of DEBIAN_GUESTS, which have a disk
#   make guests-package  the companion package with the guests, into dist/
#   make wheel           the package itself, into dist/; `make sdist` its source
#                        (HOST=aarch64: to be installed on such machines)
#   make wheel-twice     the same, and again from nothing elsewhere: equal bytes?
#   make check-wheel     check what is in dist/ before anybody gets it
#   make test-wheel      install it in fresh environments and bare Debian roots; run it
#   make test-wheel-aarch64  the wheel for aarch64, in emulated arm64 systems
#   make sources         the complete source of what is in the wheels, into dist/
#   make bindings        regenerate pandalite/_bindings/ from the C headers
#   make check           lint, types, drift of generated files
#   make soak            use everything at random for MINUTES (10) on x86_64 and on arm
#   make soak-replay     record and replay random work for MINUTES (10) on all architectures
#   make bench           measure, and print the tables of docs/performance.md
#   make clean           remove what was built here (the build cache stays)

PYTHON ?= python3
ARCH ?=
# Shells have a HOST of their own.
ifneq ($(origin HOST),command line)
HOST := $(PANDALITE_HOST)
endif
GUESTS ?= x86_64 i386 arm aarch64
MINUTES ?= 10
DEBIAN_GUESTS ?= x86_64_debian aarch64_debian

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.complete

export PYTHONDONTWRITEBYTECODE =

.PHONY: demo test test-guests core guests debian-guests guests-package wheel sdist wheel-twice check-wheel test-wheel test-wheel-aarch64 sources firmware bindings check bench soak soak-replay clean venv packages test-packages

demo: venv packages
	$(PY) tools/build_core.py x86_64
	$(PY) tools/collect_firmware.py
	$(PY) tools/build_guest.py x86_64
	$(PY) examples/count_blocks.py

test: venv test-packages core firmware guests check
	$(PY) -m pytest

core: venv packages
	$(PY) tools/build_core.py $(ARCH)

firmware: venv packages
	$(PY) tools/collect_firmware.py

guests: venv packages
	$(PY) tools/build_guest.py $(GUESTS)

# They are run while they are built, so the core comes first.
debian-guests: venv packages
	$(PY) tools/build_core.py x86_64 aarch64
	$(PY) tools/collect_firmware.py
	$(PY) tools/build_guest.py $(DEBIAN_GUESTS)

# Without names the builder makes all tiny ones. Guests with a disk that were not
# built are skipped.
test-guests: GUESTS =
test-guests: venv test-packages core firmware guests
	$(PY) -m pytest -s -rs tests/linux_guests.py tests/linux_recordings.py tests/linux_introspection.py tests/linux_os_events.py tests/linux_kernels.py tests/debian_guests.py

guests-package: venv
	$(PY) tools/build_guests_package.py

# What is built for: the machine this is, if HOST is empty.
core wheel wheel-twice: export PANDALITE_HOST = $(HOST)

wheel: venv packages
	$(PY) tools/build_wheel.py

wheel-twice: venv packages
	$(PY) tools/build_wheel.py --twice

sdist: venv
	$(PY) tools/build_wheel.py --sdist

check-wheel: venv
	$(PY) tools/check_wheel.py

test-wheel: venv
	$(PY) tools/try_wheel.py

test-wheel-aarch64: venv
	$(PY) tools/try_aarch64.py

sources: venv packages
	$(PY) tools/gather_sources.py

bindings: core
	$(PY) tools/gen_ctypes.py
	$(PY) tools/build_core.py --layouts

check: venv core firmware guests
	$(PY) tools/gen_ctypes.py --check
	$(PY) tools/gen_syscalls.py --check
	$(PY) tools/licences.py --check
	$(PY) tools/build_core.py --layouts --check
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

bench: venv core firmware guests
	$(PY) -m bench

soak: venv packages
	$(PY) tools/build_core.py x86_64 arm
	$(PY) tools/collect_firmware.py
	$(PY) tools/build_guest.py x86_64 arm
	$(PY) tests/soak.py --minutes $(MINUTES)

soak-replay: venv packages
	$(PY) tools/build_core.py
	$(PY) tools/collect_firmware.py
	$(PY) tools/build_guest.py
	$(PY) tests/soak_replay.py --minutes $(MINUTES)

packages:
	@$(PYTHON) tools/host_packages.py

# What only tests need; without them some are skipped.
test-packages:
	@$(PYTHON) tools/host_packages.py --tests

venv: $(STAMP)

$(STAMP): pyproject.toml tools/requirements-dev.txt | packages
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -q --disable-pip-version-check --no-input -r tools/requirements-dev.txt
	echo "$(CURDIR)" > $$($(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/pandalite.pth
	touch $@

clean:
	rm -rf build dist $(VENV) pandalite/_lib .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
