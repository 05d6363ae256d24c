"""The report of the finished tiny grid: what it holds, and that a browser shows it without an error."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from cotdistill.report.figures import FIGURES

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

# Walks through the page as a reader does: the front page, the menu, then each figure's button.
WALK = """
<script>
(async () => {
  const seen = {front: null, figures: {}, categories: []};
  const until = async (found) => {
    for (let tries = 0; tries < 400 && !found(); tries++) await new Promise(r => setTimeout(r, 25));
    return found();
  };
  const loaded = () => [...document.querySelectorAll("img")].find(
    i => i.src && i.src === app.state.contentPath && i.complete);
  await until(() => document.querySelector(".prose"));
  seen.front = document.querySelector(".prose").innerText;
  const pictures = [...document.querySelectorAll(".prose img")];
  await until(() => pictures.every(i => i.complete));
  seen.pictures = pictures.map(i => i.naturalWidth);
  seen.top = document.querySelector(".prose h1").getBoundingClientRect().top;
  seen.categories = Object.keys(categories);
  app.showCategory("Figures");
  await until(() => document.querySelector("nav table"));
  const rows = [...document.querySelectorAll("nav tbody tr")];
  for (const row of rows) {
    row.querySelector("a").click();
    const picture = await until(loaded);
    seen.figures[row.innerText.trim()] = picture ? picture.naturalWidth : 0;
    app.setView({contentPath: "none"});
  }
  const page = Object.keys(results).find(path => path.endsWith("samples.html"));
  seen.samples = page && new DOMParser().parseFromString(
    await (await fetch(results[page].data_uri)).text(), "text/html").querySelector("h1").innerText;
  seen.captions = Object.fromEntries(Object.entries(results).map(([path, r]) => [path, r.caption]));
  const note = document.createElement("pre");
  note.id = "seen";
  note.textContent = JSON.stringify(seen);
  document.body.append(note);
})();
</script>
"""


@pytest.fixture(scope="module")
def report(untouched: Any) -> Path:
    return Path(untouched.root / "results/tiny/report.html")


@pytest.fixture(scope="module")
def browser() -> str:
    """The path of Chromium. Skipped without one, unless it is required."""
    if CHROMIUM is None:
        reason = "no Chromium on the PATH; Debian: apt-get install chromium"
        if os.environ.get("COTDISTILL_REQUIRE_CHROMIUM") == "1":
            pytest.fail(f"COTDISTILL_REQUIRE_CHROMIUM=1, but {reason}", pytrace=False)
        pytest.skip(reason)
    return CHROMIUM


def opened(browser: str, page: Path, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """What a headless browser saw of a page with WALK in it, and the lines on its console."""
    copy = folder / "report.html"
    text = page.read_text(encoding="utf-8")
    assert text.count("</body>") >= 1
    before, _, after = text.rpartition("</body>")
    copy.write_text(f"{before}{WALK}</body>{after}", encoding="utf-8")
    found = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}", "--window-size=1400,900",
         "--virtual-time-budget=60000", "--dump-dom", copy.as_uri()],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    seen = re.search(r'<pre id="seen">(.*?)</pre>', found.stdout, re.DOTALL)
    assert seen, found.stderr[-2000:]
    lines = [line for line in found.stderr.splitlines() if "CONSOLE" in line]
    # Snakemake's page itself warns that it carries its stylesheet's compiler along
    console = [line for line in lines if "tailwindcss.com should not be used" not in line]
    return json.loads(html.unescape(seen[1])), console


@pytest.mark.slow
def test_browser_shows_every_figure_and_no_error(browser: str, report: Path, tmp_path: Path) -> None:
    seen, console = opened(browser, report, tmp_path)
    assert not console
    assert set(seen["figures"]) == set(FIGURES.names())
    assert all(width > 300 for width in seen["figures"].values()), seen["figures"]
    # the answer is what one sees first: the question on top, the figure of differences in it
    assert seen["front"].startswith("Verdict on tiny")
    assert "Is mi more accurate than dss?" in seen["front"][:200]
    assert len(seen["pictures"]) == 1 and seen["pictures"][0] > 300
    assert 0 <= seen["top"] < 100
    assert {"Comparison", "Figures", "Samples"} <= set(seen["categories"])
    assert seen["samples"] == "tiny: test examples"


@pytest.mark.slow
def test_browser_check_notices_an_error(browser: str, report: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    page = broken / "page.html"
    wrong = "<script>console.error('made up')</script><script>undefinedName.field</script></body>"
    page.write_text(wrong.join(report.read_text(encoding="utf-8").rsplit("</body>", 1)), encoding="utf-8")
    console = opened(browser, page, tmp_path)[1]
    assert any("made up" in line for line in console) and any("undefinedName" in line for line in console)


def test_captions_are_those_that_the_figures_wrote(report: Path) -> None:
    words = " ".join(html.unescape(json.loads(f'"{part}"')) for part in _captions(report))
    words = " ".join(re.sub(r"<[^>]+>", "", words).split())
    for name in FIGURES.names():
        caption = (report.parent / "figures" / f"{name}.txt").read_text(encoding="utf-8")
        assert " ".join(caption.split()) in words, name


def _captions(report: Path) -> list[str]:
    text = report.read_text(encoding="utf-8")
    return re.findall(r'"caption": "((?:[^"\\]|\\.)*)"', text)


@pytest.mark.slow
def test_zip_holds_the_same(untouched: Any, tmp_path: Path) -> None:
    target = tmp_path / "report.zip"
    found = untouched.snakemake("--report", str(target))
    assert found.returncode == 0, found.stdout
    with zipfile.ZipFile(target) as archive:
        names = [Path(name).name for name in archive.namelist()]
        assert archive.testzip() is None
    assert "report.html" in names
    assert {"samples.html", *(f"{name}.png" for name in FIGURES.names())} <= set(names)
