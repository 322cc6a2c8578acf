# The 32-bit ARM machines: virt, versatilepb, realview, vexpress, raspi.
CONFIG_ARM_VIRT=y
CONFIG_RASPI=y
CONFIG_REALVIEW=y
CONFIG_USB_DWC2=y
CONFIG_VERSATILE=y
CONFIG_VEXPRESS=y
CONFIG_VIRTIO_MMIO=y
# Realview and raspi need these and do not select them.
CONFIG_OR_IRQ=y
CONFIG_SPLIT_IRQ=y
CONFIG_UNIMP=y
