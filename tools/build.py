"""Build the pages from the executed chapters in `_build/executed`, with Jupyter Book, into `_build/html`.

    python -m tools.build [--repository-url URL --branch main]

The address of the repository, where it is given, makes the launch and repository buttons appear. MathJax is copied
beside the pages from `node_modules`, so that reading them needs no network; without it the pages load it from a CDN.
"""

import argparse
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import yaml

from tools.chapters import BUILD, EXECUTED, ROOT

HTML = BUILD / "html"
MATHJAX = ROOT / "node_modules" / "mathjax" / "es5"
# One file that draws SVG, so that no font is loaded: some browsers refuse fonts from file://. The rest are the TeX
# packages that it loads by name when a page uses them.
MATHJAX_PARTS = ["tex-mml-svg.js", "input/tex/extensions"]
COLAB = "https://colab.research.google.com"


def book_config(config: dict, *, repository_url: str = "", branch: str = "main", mathjax: bool = True) -> dict:
    """`_config.yml` with what is known at build time: MathJax's place, and the repository's address if there is one."""
    sphinx = config["sphinx"]["config"]
    if mathjax:
        sphinx["html_static_path"] = [*sphinx["html_static_path"], "_vendor"]
        sphinx["mathjax_path"] = f"mathjax/{MATHJAX_PARTS[0]}"
    if repository_url:
        config["repository"] = {"url": repository_url.rstrip("/"), "branch": branch, "path_to_book": ""}
        config["html"].update(use_repository_button=True, use_issues_button=True)
        if repository_url.startswith("https://github.com/"):  # Colab opens notebooks from there alone
            config["launch_buttons"] = {"notebook_interface": "jupyterlab", "colab_url": COLAB}
    return config


def copy_mathjax() -> bool:
    """Copy MathJax into the sources' `_vendor`; False if npm has not fetched it."""
    target = EXECUTED / "_vendor" / "mathjax"
    if not (MATHJAX / MATHJAX_PARTS[0]).is_file():
        return False
    for part in MATHJAX_PARTS:
        (target / part).parent.mkdir(parents=True, exist_ok=True)
        if (MATHJAX / part).is_dir():
            shutil.copytree(MATHJAX / part, target / part, dirs_exist_ok=True)
        else:
            shutil.copy2(MATHJAX / part, target / part)
    return True


# What the theme and the bibliography write and a reader is better off without.
CORRECTIONS = [
    # Preloaded fonts: from file:// a browser refuses the preload and reports an error; the fonts load without it.
    (r'<link rel="preload" as="font"[^>]*>\n?', ""),
    # An accessible name must contain the visible text, which is «Search Ctrl+K»: without a label, the text is the name.
    (r'(<button class="btn search-button-field[^>]*?) aria-label="[^"]*"', r"\1"),
    # A list may only hold list items; the entries have a role of their own.
    (r'<div role="list" class="citation-list">', '<div class="citation-list">'),
]


def corrected(page: str) -> str:
    """An HTML page after all CORRECTIONS."""
    for pattern, replacement in CORRECTIONS:
        page = re.sub(pattern, replacement, page)
    return page


class _Loads(HTMLParser):
    """Collects what a page loads by itself: scripts, images, frames, media, style sheets; not the links to click."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        loading = {"src", "srcset", "poster", "data"} | ({"href"} if tag == "link" else set())
        if tag == "link" and values.get("rel") in ("canonical", "author", "index", "search", "next", "prev"):
            return
        self.urls += [value for name, value in values.items() if name in loading and value]


def external_loads(page: str) -> list[str]:
    """The addresses on other hosts that an HTML page loads when it is opened."""
    loads = _Loads()
    loads.feed(page)
    return [url for url in loads.urls if re.match(r"(https?:)?//", url.strip())]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repository-url", default="", help="https://host/owner/name, for the buttons")
    parser.add_argument("--branch", default="main")
    options = parser.parse_args()

    mathjax = copy_mathjax()
    if not mathjax:
        print("node_modules/mathjax is not here (npm fetches it): the pages will load MathJax from a CDN.", flush=True)
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    config = book_config(config, repository_url=options.repository_url, branch=options.branch, mathjax=mathjax)
    (EXECUTED / "_config.yml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")

    for folder in (HTML, BUILD / ".doctrees", BUILD / "jupyter_execute"):
        shutil.rmtree(folder, ignore_errors=True)  # a second build would not repeat the first one's warnings
    jupyter_book = Path(sys.executable).with_name("jupyter-book")
    command = [jupyter_book, "build", EXECUTED, "--path-output", ROOT, "-W", "-n", "--keep-going", "-q"]
    built = subprocess.run(command, check=False)
    if built.returncode:
        print("The pages were not built: see the warnings above.", flush=True)
        return built.returncode

    for page in sorted(HTML.rglob("*.html")):
        text = corrected(page.read_text(encoding="utf-8"))
        page.write_text(text, encoding="utf-8")
        external = [url for url in external_loads(text) if mathjax or "mathjax" not in url]
        if external:
            print(f"{page.relative_to(ROOT)} loads from other hosts: {', '.join(external)}", flush=True)
            return 1
    print(f"The book: {HTML / 'index.html'}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
