/*
 * Devices of which QEMU does not save all: after a snapshot is loaded, or at
 * the beginning of a replay, they would be somewhere else.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "core/internal.h"
#include "hw/pci/pci_device.h"
#include "hw/sd/sdhci.h"
#include "migration/vmstate.h"

/* Of an SD host controller on PCI it saves the controller, and not the rest. */
static VMStateField sdhci_pci_fields[] = {
    VMSTATE_PCI_DEVICE(pcidev, SDHCIState),
    {
        .name = "controller",
        .size = sizeof(SDHCIState),
        .flags = VMS_STRUCT,
    },
    VMSTATE_END_OF_LIST()
};

static const VMStateDescription sdhci_pci_vmstate = {
    .name = "sdhci-pci",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = sdhci_pci_fields,
};

void __real_sdhci_common_class_init(ObjectClass *klass, const void *data);
void __wrap_sdhci_common_class_init(ObjectClass *klass, const void *data);
void __wrap_sdhci_common_class_init(ObjectClass *klass, const void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);

    __real_sdhci_common_class_init(klass, data);
    if (object_class_dynamic_cast(klass, TYPE_PCI_DEVICE)) {
        sdhci_pci_fields[1].vmsd = dc->vmsd;
        dc->vmsd = &sdhci_pci_vmstate;
    }
}
