"""Runs a policy behind its shield on a Linux computer: ``python3 run.py --help``. README.md says how to begin."""

import sys

from puffer_edge_linux.options import parse
from puffer_edge_linux.serve import serve
from puffer_edge_linux.supervise import supervise


def main() -> int:
    """Watch a child that does the work; the child is this program again."""
    arguments = sys.argv[1:]
    options = parse(arguments)
    return serve(options, arguments) if options.watched else supervise(options, [sys.executable, __file__, *arguments])


if __name__ == "__main__":
    sys.exit(main())
