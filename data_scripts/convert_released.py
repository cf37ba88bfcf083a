"""The same as `pcma-data convert`, from a checkout."""

import sys

from pcma_data.released import main

if __name__ == "__main__":
    sys.exit(main())
