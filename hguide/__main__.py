"""`python -m hguide`."""

import sys

from hguide.cli import main

if __name__ == "__main__":
    sys.exit(main())
