"""The parts of the guest builder; ``tools/build_guest.py`` is the command."""
