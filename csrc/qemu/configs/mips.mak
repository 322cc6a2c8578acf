# The MIPS machine: malta.
CONFIG_MALTA=y
