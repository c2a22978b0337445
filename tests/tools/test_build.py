"""The configuration of the pages, and what they may load."""

import yaml
from jupyter_book.config import validate_yaml

from tools.build import book_config, corrected, external_loads
from tools.chapters import ROOT


def config() -> dict:
    return yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))


def test_config_is_valid_alone_and_with_what_the_build_adds():
    validate_yaml(config(), raise_on_errors=True)
    validate_yaml(book_config(config(), repository_url="https://github.com/owner/name"), raise_on_errors=True)


def test_no_buttons_without_an_address():
    assert {"repository", "launch_buttons"}.isdisjoint(book_config(config()))


def test_buttons_with_an_address():
    built = book_config(config(), repository_url="https://github.com/owner/name/", branch="next")
    assert built["repository"] == {"url": "https://github.com/owner/name", "branch": "next", "path_to_book": ""}
    assert "colab_url" in built["launch_buttons"]
    assert built["html"]["use_repository_button"] is True


def test_colab_needs_github():
    built = book_config(config(), repository_url="https://git.example.org/owner/name")
    assert "launch_buttons" not in built
    assert built["repository"]["url"] == "https://git.example.org/owner/name"


def test_mathjax_is_local_if_it_can_be():
    local = book_config(config())["sphinx"]["config"]
    assert "_vendor" in local["html_static_path"] and local["mathjax_path"].startswith("mathjax/")
    assert "mathjax_path" not in book_config(config(), mathjax=False)["sphinx"]["config"]


def test_external_loads():
    loading = [
        '<script src="https://cdn.example.org/a.js"></script>',
        '<img src="http://example.org/a.png">',
        '<link rel="stylesheet" href="//fonts.example.org/a.css">',
        '<iframe src=" https://example.org/"></iframe>',
    ]
    for tag in loading:
        assert len(external_loads(f"<p>{tag}</p>")) == 1, tag
    harmless = [
        '<a href="https://example.org/">a link to click</a>',
        '<link rel="canonical" href="https://example.org/">',
        '<script src="_static/a.js"></script>',
        '<img src="../_images/a.png" alt="https://example.org">',
    ]
    assert external_loads("".join(harmless)) == []


def test_corrections():
    assert corrected('<link rel="preload" as="font" type="font/woff2" crossorigin href="a.woff2" />\n<p>') == "<p>"
    button = (
        '<button class="btn search-button-field x" title="Search" aria-label="Search" data-y="z">Search Ctrl+K</button>'
    )
    assert corrected(button) == button.replace(' aria-label="Search"', "")
    other = '<button class="btn" aria-label="Search">'
    assert corrected(other) == other
    assert corrected('<div role="list" class="citation-list">') == '<div class="citation-list">'
