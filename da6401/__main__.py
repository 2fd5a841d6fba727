"""python -m da6401: the command line without an installed script."""

import sys

from da6401.cli import main

if __name__ == "__main__":
    sys.exit(main())
