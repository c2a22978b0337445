"""The files around the code: exact pins, nothing that only works in one place."""

import json
import re
import subprocess

import pytest
import yaml

from tools.chapters import ROOT


def tracked() -> list[str]:
    """The repository's text files, by `git`; skips where this is no checkout."""
    done = subprocess.run(["git", "-C", ROOT, "ls-files"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-ray.txt", "requirements-faiss.txt"])
def test_python_pins_are_exact(name):
    lines = (ROOT / name).read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert pins and all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)


def test_the_readme_tells_what_the_chapters_took():
    measured = json.loads((ROOT / "data" / "timings.json").read_text()).values()
    seconds = round(sum(chapter["smoke"]["cpu"]["seconds"] for chapter in measured))
    told = re.search(r"executing all chapters for `make\s+book` ([\d:]+) minutes", (ROOT / "README.md").read_text())
    assert told and told[1] == f"{seconds // 60}:{seconds % 60:02}"


def test_the_readme_names_every_file_of_a_method_that_has_several():
    files = {path.name for path in (ROOT / "lib" / "methods").glob("mbpa*.py")}
    assert files and files <= set(re.findall(r"\bmbpa\w*\.py", (ROOT / "README.md").read_text()))


def test_records_that_only_show_that_all_works_are_not_committed():
    assert [name for name in tracked() if re.fullmatch(r"data/results/.*-smoke-\d+\.json", name)] == []
    probe = ["git", "-C", ROOT, "check-ignore", "--quiet", "--no-index"]
    assert subprocess.run([*probe, "data/results/mann.table1/mann-smoke-0.json"]).returncode == 0
    assert subprocess.run([*probe, "data/results/mann.table1/mann-short-0.json"]).returncode == 1


def test_javascript_pins_are_exact_and_name_no_registry():
    package = json.loads((ROOT / "package.json").read_text())
    pins = {**package["dependencies"], **package["devDependencies"]}
    lock = json.loads((ROOT / "package-lock.json").read_text())
    locked = {name.removeprefix("node_modules/"): entry for name, entry in lock["packages"].items() if name}
    assert {name: entry["version"] for name, entry in locked.items()} == pins
    assert all("integrity" in entry and "resolved" not in entry for entry in locked.values())


def test_only_the_ci_script_knows_a_folder_beside_the_repository():
    beside = "../" + "shared"
    texts = [name for name in tracked() if not name.endswith((".png", ".safetensors"))]
    assert [name for name in texts if beside in (ROOT / name).read_text(errors="ignore")] in ([], [".ci/run"])


def test_third_party_javascript_is_not_committed():
    assert [name for name in tracked() if "node_modules" in name or name.endswith(".min.js")] == []


@pytest.mark.parametrize("name", ["_config.yml", "_toc.yml", "CITATION.cff", ".pre-commit-config.yaml"])
def test_yaml_is_valid(name):
    assert isinstance(yaml.safe_load((ROOT / name).read_text()), dict)


@pytest.mark.parametrize("name", ["tests", "book"])
def test_workflow_is_valid(name):
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text())
    assert all("runs-on" in job and job["steps"] for job in workflow["jobs"].values())
