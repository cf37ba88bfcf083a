"""The same as `pcma-data stamps`, from a checkout."""

import sys

from pcma_data.stamps import main

if __name__ == "__main__":
    sys.exit(main())
