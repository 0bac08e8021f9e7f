"""The program as `python -m sealserve`, where the script is not on the path."""

import sys

from sealserve.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
