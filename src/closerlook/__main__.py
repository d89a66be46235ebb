"""``python -m closerlook`` is the command ``closerlook``."""

import sys

from closerlook.cli import main

if __name__ == "__main__":
    sys.exit(main())
