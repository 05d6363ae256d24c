"""Put figures and their captions into docs/gallery.md.

    python docs/gallery.py results/demo/figures [figure ...]
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import textwrap
from pathlib import Path

DOCS = Path(__file__).parent
WIDTH = 130


def main(folder: Path, names: list[str]) -> None:
    """Copy the pictures of `names` (by default all that show numbers) and write their captions below."""
    page = DOCS / "gallery.md"
    text = page.read_text(encoding="utf-8")
    for name in names or _showing(folder):
        picture = f"(images/gallery-{name}.png)\n"
        if picture not in text:
            sys.exit(
                f"error: {page} has no place for the figure '{name}': add ![what it shows]{picture.strip()}"
            )
        shutil.copy(folder / f"{name}.png", DOCS / "images" / f"gallery-{name}.png")
        caption = textwrap.fill((folder / f"{name}.txt").read_text(encoding="utf-8").strip(), WIDTH - 2)
        quoted = textwrap.indent(caption, "> ")
        # the quotation that follows the picture is the caption of the last time
        place = re.compile(re.escape(picture) + r"(\n(?:> .*\n)+)?")
        text = place.sub(lambda _, new=f"{picture}\n{quoted}\n": new, text)
    page.write_text(text, encoding="utf-8")


def _showing(folder: Path) -> list[str]:
    """The figures with numbers: where a grid has nothing to show there is a sentence, which names no n."""
    captions = {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.txt"))}
    return [name for name, caption in captions.items() if "n = " in caption]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="folder of figures, such as results/demo/figures")
    parser.add_argument("figure", nargs="*", help="names of figures (default: all that show numbers)")
    chosen = parser.parse_args()
    if missing := [name for name in chosen.figure or ["*"] if not list(chosen.folder.glob(f"{name}.txt"))]:
        parser.error(f"no figure {', '.join(missing)} with its caption (.txt) in {chosen.folder}")
    main(chosen.folder, chosen.figure)
