"""What the commands share: how they introduce themselves and how they end."""

import argparse
import functools
import sys
from collections.abc import Callable
from concurrent.futures import BrokenExecutor


def command_parser(name: str, documentation: str | None) -> argparse.ArgumentParser:
    """A parser for `pcma-data NAME`, whose help begins with the module's own documentation."""
    kind = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(f"pcma-data {name}", description=documentation, formatter_class=kind)


def command(main: Callable[..., int | None]) -> Callable[..., int | None]:
    """Let a command end as a shell expects it: with what it returns, with 2 and a message for an error, 130 if stopped."""

    @functools.wraps(main)
    def run(*arguments, **more) -> int:
        try:
            return main(*arguments, **more)
        except (ValueError, OSError, BrokenExecutor) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("\nstopped; whole files are kept, and the same command does what is left", file=sys.stderr)
            return 130

    return run
