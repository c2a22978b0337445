"""The chapters as the table of contents lists them."""

from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "_build"
EXECUTED = BUILD / "executed"  # what the pages are built from


def toc_entries(root: Path = ROOT) -> list[str]:
    """Every entry of `_toc.yml`, in reading order, without suffix (`book/mann/equations`)."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    entries = [toc["root"]]

    def walk(node: dict) -> None:
        for part in node.get("parts", []):
            walk(part)
        for page in [*node.get("chapters", []), *node.get("sections", [])]:
            if "file" in page:
                entries.append(page["file"])
            walk(page)

    walk(toc)
    return [entry.removesuffix(".ipynb").removesuffix(".md") for entry in entries]


def toc_notebooks(root: Path = ROOT) -> list[str]:
    """Those entries that are notebooks, as paths from the root (`book/mann/equations.ipynb`)."""
    return [f"{entry}.ipynb" for entry in toc_entries(root) if (root / f"{entry}.ipynb").is_file()]
