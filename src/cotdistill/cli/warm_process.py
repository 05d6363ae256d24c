"""Start the warm process that `cotdistill.orchestration.warm` describes.

`python -m cotdistill.cli.warm_process ADDRESS`; the address is the path of its socket.
"""

from __future__ import annotations

import sys

from cotdistill.cli import main
from cotdistill.orchestration.warm import serve

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print("usage: python -m cotdistill.cli.warm_process ADDRESS", file=sys.stderr)
        sys.exit(2)
    serve(sys.argv[1], main)
