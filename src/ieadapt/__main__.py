"""`python -m ieadapt` is the same as `ieadapt`."""

import sys

from ieadapt.cli import main

if __name__ == "__main__":
    sys.exit(main())
