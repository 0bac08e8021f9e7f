"""`sealserve pack`: a model in one file that needs no pickle and no library of training."""

import hashlib
from argparse import ArgumentParser, Namespace
from pathlib import Path

from sealserve.cli.command import Command
from sealserve.errors import InputError, PlanError

_LEFT_OUT = ("weights", "accept_disagreement")  # whoever serves the file chooses the mode, and is asked
_ABOUT = """\
The file holds the published steps, the private weights, the output, the
columns, and what the planner has found: ranges, grids and, with --calibration,
verdicts, but no row. It is all that `sealserve serve --model NAME=FILE` needs:
no option, no pickle, and none of scikit-learn, XGBoost and LightGBM. Equal
input makes an equal file.

The weights are in it: it is written with mode 0600, for its owner only. You
agree now, with --publish, to what serving it publishes; `serve` asks no more."""


def configure(parser: ArgumentParser) -> None:
    """Add the options."""
    # Imported here: a list of commands needs no extra.
    from sealserve_service.commands.options import add_options
    from sealserve_service.models.loading import SUFFIXES_IN_WORDS
    from sealserve_service.settings.options import MODEL_OPTIONS

    parser.add_argument("path", type=Path, metavar="MODEL", help=f"the file of a model: {SUFFIXES_IN_WORDS}")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.sealmodel", help="the packed file")
    add_options(parser, [option for option in MODEL_OPTIONS if option.name not in _LEFT_OUT])
    parser.description = f"{parser.description}\n\n{_ABOUT}"


def run(arguments: Namespace) -> int:
    """Write the file, and say what it publishes and what the verdicts are."""
    from threadpoolctl import threadpool_limits

    from sealserve_service.catalog.packing import pack, write_private
    from sealserve_service.commands.inspect import what_is_told
    from sealserve_service.commands.options import settings_of
    from sealserve_service.models.sealmodel_format import SUFFIX
    from sealserve_service.settings.options import MODEL_OPTIONS

    output: Path = arguments.output
    if output.suffix.lower() != SUFFIX:
        raise InputError(f"{output}: a packed file is known by its suffix {SUFFIX}: name it FILE{SUFFIX}")
    settings = settings_of(arguments, [option for option in MODEL_OPTIONS if option.name not in _LEFT_OUT])
    source = settings.source(arguments.path.stem, arguments.path)
    with threadpool_limits(1, user_api="blas"):  # as in a serving process, so that sums are the same
        packed = pack(source, trust_pickle=settings.trust_pickle, hiding_bits=settings.hiding_bits)
    write_private(output, packed.content)
    print(f"{output}: {len(packed.content):,} bytes with the weights, for its owner only (mode 0600)")
    print(f"pin it: --model NAME={output}@sha256:{hashlib.sha256(packed.content).hexdigest()}")
    print(what_is_told(packed.model, packed.scores_to_copy))
    print("\nServed as it is:")
    for found in packed.layouts:
        mode = "private" if found.is_private else "open"
        word = "not possible: " if isinstance(found.judgement, PlanError) else ""
        print(f"  --weights {mode}, layout {found.layout.name}: {word}{found.judgement}")
    return 0


COMMAND = Command(
    "pack",
    "write a model to one file that is served without a pickle and without scikit-learn",
    "  sealserve pack churn.joblib --trust-pickle --publish steps --calibration rows.csv -o churn.sealmodel\n"
    "  sealserve serve --model churn=churn.sealmodel",
    configure,
    run,
    extra="service",
)
