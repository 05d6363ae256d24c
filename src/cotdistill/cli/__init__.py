"""Read the command line. Each command is a thin call of one stage; stages are imported when they run."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from cotdistill import __version__
from cotdistill.common.errors import UserError, describe_shortage
from cotdistill.common.stopping import PREEMPTED, Preempted
from cotdistill.common.surroundings import check_numbers, settle, use_utf8

FAILED = 1
WARM = ("train", "evaluate")
"""commands that a warm process may do, see `orchestration.warm`"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. The exit code is 0, 1 after one line that says what is wrong, or 75 if preempted."""
    if arguments is None:
        use_utf8()
    settle()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(arguments)
    if options.run.__name__ in WARM:
        from cotdistill.orchestration import warm

        if (code := warm.run(arguments)) is not None:
            return code
    try:
        check_numbers()
        code = options.run(options) or 0
        sys.stdout.flush()  # a reader that went away is noticed here rather than at exit
        return code
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
    except Preempted as stopped:
        print(f"stopped: {stopped}", file=sys.stderr)
        return PREEMPTED
    except BrokenPipeError:
        # the reader of our output went away (`| head`): nothing to say, and nobody to say it to
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(f"error: {place}{error.strerror or error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if (shortage := describe_shortage(error)) is None:
            raise
        print(f"error: {shortage}", file=sys.stderr)
    return FAILED


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands and their options."""
    from cotdistill.cli import commands

    top = argparse.ArgumentParser(
        prog="cotdistill",
        description="Compare chain-of-thought distillation methods over datasets, students and seeds.",
    )
    top.add_argument("--version", action="version", version=f"cotdistill {__version__}")
    subparsers = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, command in commands.COMMANDS.items():
        first, _, rest = (command.__doc__ or "").partition("\n")
        sub = subparsers.add_parser(name, help=first.rstrip("."), description=f"{first} {rest.strip()}")
        if name not in commands.WITHOUT_CONFIG:
            sub.add_argument("--config", default="config.yaml", help="config file (default: %(default)s)")
        for flags, settings in commands.OPTIONS.get(name, []):
            sub.add_argument(*flags, **settings)
        sub.set_defaults(run=command)
    return top
