"""``python -m lit_splitmask``: the command line where its script is not on the path."""

import sys

from lit_splitmask.cli import main

if __name__ == "__main__":
    sys.exit(main())
