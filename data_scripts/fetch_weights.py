"""The same as `pcma-data weights`, from a checkout."""

import sys

from pcma_data.weights import main

if __name__ == "__main__":
    sys.exit(main())
