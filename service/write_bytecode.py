"""Import all modules of sealserve, so that Python writes the bytecode of all that they import.

The image is built with it. It cannot write bytecode later, and to compile at each start takes
seconds. The bytecode of what nothing imports would be a twentieth of the image.
"""

import contextlib
import importlib
import pkgutil

for package in ("sealserve", "sealserve_service"):
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        with contextlib.suppress(ModuleNotFoundError):  # of an extra that the image does not have
            importlib.import_module(module.name)
