# The paravirtual machine of 64-bit PowerPC: pseries.
CONFIG_PSERIES=y
CONFIG_SPAPR_RNG=y
