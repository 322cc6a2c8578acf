"""One virtual CPU is supported; more are refused with the reason."""

from __future__ import annotations

from typing import Any

import pytest
from guest import run_case

MACHINES = {"x86_64": "pc", "aarch64": "virt"}


def case_options(arch: str, words: list[str]) -> list[str]:
    """What creating a machine raises, if anything."""
    from pandalite import Panda

    try:
        panda = Panda(arch=arch, extra_args=["-nodefaults", *words])
        panda.cb_after_machine_init(lambda cpu: panda.end_analysis(), name="end")
        panda.run()
    except Exception as error:
        return [type(error).__name__, str(error)]
    return []


@pytest.mark.parametrize("arch", MACHINES)
def test_more_than_one_cpu(arch: str) -> None:
    machine = MACHINES[arch]

    def raised(*words: str) -> Any:
        return run_case(case_options, arch, ["-M", machine, *words])

    for option in ("2", "cpus=2", "cores=2", "1,sockets=1,threads=2"):
        name, text = raised("-smp", option)
        assert name == "UnsupportedFeatureError"
        assert text == f"-smp {option}: only one virtual CPU is supported; remove the option"
    # What the option is short for is found when the machine is there.
    name, text = run_case(case_options, arch, ["-M", f"{machine},smp.cpus=2"])
    assert name == "MachineError"
    assert "only one virtual CPU is supported" in text
    assert raised("-smp", "1") == []
    # Room for more is not more.
    assert raised("-smp", "1,maxcpus=2") == []
