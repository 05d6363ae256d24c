"""Name files to Snakemake, which takes a word in braces for a wildcard, in whatever path it stands.

Snakemake has no way to escape it. Where the path of a user's folder holds such a word, Snakemake is given a
link to it, below its own folder; jobs use the folder itself.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from cotdistill.common.files import digest

FOLDER = Path(".snakemake", "cotdistill")
"""where the links are"""

_READ_BY_SNAKEMAKE = re.compile(r"[{}<>]")
"""marks of wildcards and of path variables"""


def avoid_patterns(path: Path) -> str:
    """Return a path as text; where Snakemake would read it as a pattern, that of a link to it."""
    if not _READ_BY_SNAKEMAKE.search(str(path)):
        return str(path)
    target = path.absolute()
    link = FOLDER / digest(str(target))
    FOLDER.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):  # the same link: its name is made of its target
        os.symlink(target, link)
        # the time of the link counts beside that of its file: as old as can be
        os.utime(link, (0, 0), follow_symlinks=False)
    return str(link)
