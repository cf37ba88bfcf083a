"""Makes, checks and fetches what PCMANet is trained on.

    pcma-data demo       compose clips of drawn objects with synthesised sounds
    pcma-data stamps     compose clips of real photographs and recordings
    pcma-data avsbench   check a download of AVSBench and complete it
    pcma-data weights    fetch VGGish and the ImageNet encoders
    pcma-data convert    make a model file of a published checkpoint

pcma-data COMMAND --help shows what a command takes.
"""

import argparse
import sys
from importlib import import_module

from pcma_lib import needing

MODULES = {"demo": "demo", "stamps": "stamps", "avsbench": "avsbench", "weights": "weights", "convert": "released"}


def main(arguments: list[str] | None = None) -> int | None:
    parser = argparse.ArgumentParser("pcma-data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=MODULES, metavar="COMMAND", help=f"one of {', '.join(MODULES)}")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="what the command takes")
    given = parser.parse_args(arguments)
    try:
        with needing("train"):
            module = import_module(f"pcma_data.{MODULES[given.command]}")
    except ImportError as error:
        sys.exit(f"error: {error}")
    return module.main(given.arguments)


if __name__ == "__main__":
    sys.exit(main())
