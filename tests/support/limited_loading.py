"""Program that loads models with little memory: `python -m` this module ROOM PATH...

It loads each model in two processes of its own: as before there were limits, when NumPy, skops and
scikit-learn got whatever a file says, and with limits. ROOM is the address space, in bytes, that
loading may take. For each process it prints a line of JSON: path, whether there were limits, the
name of the error or "loaded", and how many bytes the process has grown.
"""

import io
import json
import os
import resource
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from sealserve_service.models import arrays, limits, npz_format, sealmodel_format, skops_archive
from sealserve_service.models.loading import load_model


def main() -> None:
    """Load each model, once with limits and once without."""
    warnings.simplefilter("ignore")
    room = int(sys.argv[1])
    for path in map(Path, sys.argv[2:]):
        for are_limited in (False, True):
            # A process of its own, but with the modules imported.
            process = os.fork()
            if not process:
                if not are_limited:
                    _remove_limits()
                outcome, grown = _load(path, room)
                print(json.dumps([str(path), are_limited, outcome, grown]), flush=True)
                os._exit(0)
            os.waitpid(process, 0)


def _load(path: Path, room: int) -> tuple[str, int]:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + room
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        load_model(path, trust_pickle=False)
        outcome = "loaded"
    except Exception as error:
        causes = error, error.__cause__
        outcome = "MemoryError" if any(isinstance(cause, MemoryError) for cause in causes) else type(error).__name__
    return outcome, 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def _remove_limits() -> None:
    def accept(*_: object) -> None:
        pass

    replaced: dict[Any, Any] = {
        limits.check_limit: accept,
        limits.check_weights: accept,
        arrays._floats: lambda values, _: np.asarray(values, np.float64),
        arrays.array: lambda values, _: np.asarray(values),
        npz_format._read_arrays: _load_arrays,
        sealmodel_format._read_parts: _load_parts,
        skops_archive.checked: lambda content: content,
    }
    models = [module for name, module in sys.modules.items() if name.startswith("sealserve_service.models.")]
    for module in models:
        for name, function in list(vars(module).items()):
            if callable(function) and function in replaced:
                setattr(module, name, replaced[function])


def _load_arrays(content: bytes, _: Path) -> dict[str, Any]:
    archive = np.load(io.BytesIO(content), allow_pickle=False)
    return {name: archive[name] for name in archive.files}


def _load_parts(content: bytes, path: Path) -> Any:
    description = json.loads(zipfile.ZipFile(io.BytesIO(content)).read("description.json"))
    arrays = _load_arrays(content, path)
    return sealmodel_format._Parts(
        sealmodel_format._Description.model_validate_json(json.dumps(description)),
        arrays.pop("steps", None),
        {name: values for name, values in arrays.items() if isinstance(values, np.ndarray)},
    )


if __name__ == "__main__":
    main()
