"""hatchling's build hook: builds what is missing, and puts it into the wheel.

For an editable install it only builds: the package is used where it is. The
source distribution has nothing built in it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

TOOLS = Path(__file__).resolve().parent


class WheelHook(BuildHookInterface):  # type: ignore[type-arg]
    """Called by hatchling before and after a wheel is made."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build, and say what else belongs into the wheel and how it is tagged."""
        if self.target_name != "wheel":
            return
        sys.path.insert(0, str(TOOLS))
        import contents
        import sbom
        from debian import ArchiveError
        from project import ROOT, BuildError, host, native

        contents.clean_environment()
        try:
            if version == "editable" and host() != native():
                raise BuildError("what is built for another machine cannot be used in place")
            contents.make()
            if version == "editable":
                return
            built = contents.built_files()
            bill = ROOT / "build" / "sbom" / sbom.NAME
            sbom.write(bill, sbom.of_pandalite())
        except (BuildError, ArchiveError) as error:
            raise SystemExit(f"error: {error}") from error
        build_data["tag"] = contents.tag(host())
        build_data["pure_python"] = False
        build_data["force_include"].update({str(path): place for path, place in built.items()})
        # hatchling 1.27, the newest for Python 3.9, has no place for it; what is
        # released is made by a newer one, and tools/check_wheel.py asks for it.
        if "sbom_files" in build_data:
            build_data["sbom_files"].append(bill.relative_to(ROOT).as_posix())
