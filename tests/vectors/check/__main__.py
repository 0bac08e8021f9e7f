"""The command: it checks all vectors, and fails at the first that is wrong."""

import sys
from pathlib import Path

from tests.vectors.check.vectors import checks


def main(folder: Path) -> None:
    """Check the vectors of a folder."""
    for name, check in checks(folder).items():
        try:
            check()
        except Exception as error:
            error.add_note(f"in {name}")
            raise
        print(f"{name}: right")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1])
