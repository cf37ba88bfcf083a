"""The same as `pcma-data avsbench`, from a checkout."""

import sys

from pcma_data.avsbench import main

if __name__ == "__main__":
    sys.exit(main())
