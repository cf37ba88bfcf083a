"""The same as `pcma-data demo`, from a checkout."""

import sys

from pcma_data.demo import main

if __name__ == "__main__":
    sys.exit(main())
