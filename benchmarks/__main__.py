"""The benchmark program: it runs the parts one after the other, each in a process of its own.

Each part prints a table and writes a JSON file, and some a plot, into build/bench. All parts
together take ten minutes on two cores. What a part measures, and its options: `python -m
benchmarks.PART --help`.
"""

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.report import FIRST, OUTPUT
from tests.support import mnist

Job = tuple[str, ...]  # a module of this package, and its options


@dataclass(frozen=True)
class Part:
    """A benchmark, and its options.

    Attributes:
        about: what it measures.
        usual: options so that all take ten minutes on two cores.
        full: options where time does not matter.
        quick: options to see that it works.
        data: the files that it cannot do without, by name.
    """

    about: str
    usual: Sequence[str] = ()
    full: Sequence[str] = ()
    quick: Sequence[str] = ()
    data: Sequence[str] = ()


MNIST = (mnist.IMAGES, mnist.LABELS, mnist.MODEL)
PARTS = {
    "row": Part("single rows: where their time goes, and the labels of all of MNIST", quick=["--rows=40"], data=MNIST),
    "uploads": Part("full and seeded ciphertexts, and the links on which seeding pays", quick=["--calls=10"]),
    "column": Part(
        "batches: the service beside one of plaintext rows", quick=["--turns=1", "--seconds=0.2"], data=MNIST
    ),
    "client_memory": Part(
        "what a client holds in memory while it streams", usual=["--share=0.25"], quick=["--share=0.05"]
    ),
    "private": Part("private weights beside open ones", data=MNIST),
    "steps": Part(
        "models with published steps: trees, categories, texts, images",
        full=["--concrete-ml"],
        quick=["--model=HistGradientBoosting, 100 x 31"],
    ),
    "ei": Part("encrypted-inference clients: our engine beside EIServer", quick=["--rounds=1"], data=MNIST),
    "overload": Part("four times more requests than can be answered", quick=["--calls=25", "--seconds=2"], data=MNIST),
    "hostile": Part("one tenant beside peers that send what they should not", quick=["--calls=20"]),
    "peers": Part("every other system beside ours, by turns", full=["--concrete-ml"], quick=["--quick"], data=MNIST),
    "scaling": Part(
        "how time grows with features, classes, rows, clients",
        usual=["--axes=rows", "--patience=15"],  # longer ones are on the same straight line
        quick=["--axes=rows", "--most=16"],
    ),
}
OTHERS = """other programs, each with --help:
  python -m benchmarks.agent     what the agent adds to a row and a batch, and what many callers of it get
  python -m benchmarks.callers   what many callers are answered, and how long they wait
  python -m benchmarks.capacity  what `sealserve plan` predicts beside what is measured, and what Envoy costs
  python -m benchmarks.clients   the clients in Go and TypeScript beside the Python SDK: calls of a row and a batch
  python -m benchmarks.hostile --messages 1000000
                                 that one service, its memory and its scores endure a million hostile messages
  python -m benchmarks.links     rows, streams and batches over TLS and links that delay and throttle
  python -m benchmarks.parameter_sets
                                 which sets hold which models, and the bytes of a row with each of them
  python -m benchmarks.replicas  three replicas behind Envoy: overload, and a tenant beside bad peers
  python -m benchmarks.replies   packed replies beside residues: what each costs at either end
  python -m benchmarks.soak      memory, descriptors and threads of a service under mixed load; --envoy: by Envoy
  python -m benchmarks.walk      the calls and changes of file of one prediction, counted
  python -m benchmarks.he_org    the workload "ML inference" of HomomorphicEncryption.org
  python -m benchmarks.extraction  how many honest scores copy a private head
  python -m benchmarks.publish   the results of a run into README and docs"""
PROFILES: list[Job] = [
    ("request_profile", f"--weights={weights}", f"--layout={layout}")
    for weights in ("private", "open")
    for layout in ("row", "column")
]


def run(jobs: Sequence[Job], which: str = "") -> None:
    """Run jobs; say which one runs, with a prefix, and how long each took.

    Raises:
        SystemExit: one has failed; those after it are not run.
    """
    for number, (name, *options) in enumerate(jobs, 1):
        print(f"\n[{which}{number} of {len(jobs)}] {' '.join((name, *options))}\n", flush=True)
        start = time.monotonic()
        command = [sys.executable, "-m", f"benchmarks.{name}", *options]
        if code := subprocess.run(command, check=False).returncode:
            sys.exit(f"\n{name} has failed, with exit code {code}; what it says is above. Alone: {' '.join(command)}")
        print(f"\n{name} took {time.monotonic() - start:.0f} s", flush=True)


def with_data(names: Sequence[str]) -> list[str]:
    """Fetch the data that parts need. Return the parts that have theirs, and say which are skipped.

    Raises:
        SystemExit: no part is left.
    """
    needed = dict.fromkeys(file for name in names for file in PARTS[name].data)
    reasons = {file: reason for file in needed if (reason := _want_of(file))}
    lacking = {name: [file for file in PARTS[name].data if file in reasons] for name in names}
    for file, reason in reasons.items():
        print(f"{file} is not here: {reason}", file=sys.stderr)
    for name, files in lacking.items():
        if files:
            print(f"{name} is skipped: it needs {', '.join(files)}", file=sys.stderr, flush=True)
    if not (left := [name for name, files in lacking.items() if not files]):
        sys.exit("no part is left: run `make data`, or set SEALSERVE_DATA to the folder of these files")
    return left


def _want_of(file: str) -> str:
    """Return why a file is not here; "" if it is, perhaps because it has been fetched now."""
    if mnist.find(file) is not None:
        return ""
    if file not in mnist.SHA256:
        return "nothing has it for download; set SEALSERVE_DATA to the folder that has it"
    try:
        mnist.provide(file)
    except mnist.DataError as error:
        return str(error).replace("\n", "; ")
    return ""


def put_aside(names: Iterable[str]) -> None:
    """Move the results of parts to where those of the first of two runs are kept."""
    shutil.rmtree(FIRST, ignore_errors=True)
    FIRST.mkdir()
    for name in names:
        for path in OUTPUT.glob(f"{name}.*"):
            path.replace(FIRST / path.name)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    listed = "\n".join(f"  {name:14} {part.about}" for name, part in PARTS.items())
    made = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog=f"parts:\n{listed}\n\n{OTHERS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("parts", nargs="*", metavar="PART", help="run only these, in this order (default: all)")
    how = made.add_mutually_exclusive_group()
    how.add_argument("--full", action="store_true", help="no limit of time: Concrete ML too, and every axis of scaling")
    how.add_argument("--quick", action="store_true", help="only check that all parts work; the figures mean nothing")
    how.add_argument("--profile", action="store_true", help="instead of the parts: where the time of one request goes")
    made.add_argument("--twice", action="store_true", help="run all twice, and say how far apart the ratios are")
    return made


def main() -> None:
    """Run what was asked for."""
    command_line = parser()
    arguments = command_line.parse_args()
    if arguments.profile and (arguments.parts or arguments.twice):
        command_line.error("--profile goes alone")
    if unknown := set(arguments.parts) - PARTS.keys():
        command_line.error(f"no part {', '.join(sorted(unknown))}: there are {', '.join(PARTS)}")
    names = [] if arguments.profile else with_data(list(dict.fromkeys(arguments.parts or PARTS)))
    pace = "full" if arguments.full else "quick" if arguments.quick else "usual"
    jobs: list[Job] = [(name, *getattr(PARTS[name], pace)) for name in names]
    began, start = time.time(), time.monotonic()
    if arguments.profile:
        run(PROFILES)
    else:
        (OUTPUT / "repeat.json").unlink(missing_ok=True)  # it is about results that are going to be others
        run(jobs, "first run: " if arguments.twice else "")
    if arguments.twice:
        put_aside(names)
        run([*jobs, ("repeat",)], "second run: ")
    files = sorted(path.name for path in OUTPUT.iterdir() if path.is_file() and path.stat().st_mtime >= began)
    minutes, seconds = divmod(round(time.monotonic() - start), 60)
    print(f"\nall of it took {minutes} min {seconds} s; in {OUTPUT}: {', '.join(files)}")


if __name__ == "__main__":
    main()
