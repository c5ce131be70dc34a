"""The page of models names each family that the engine runs, and refuses none of them."""

import re

from project_files import ROOT


def test_the_page_of_models_names_what_runs_and_what_is_refused() -> None:
    table = (ROOT / "native" / "src" / "model" / "architecture.c").read_text(encoding="utf-8")
    run = set(re.findall(r'^    \{"([\w-]+)"', table, re.MULTILINE))
    assert len(run) > 30
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    (families,) = re.findall(r"^\| families \|(.*)", page, re.MULTILINE)
    assert set(re.findall(r"`([\w-]+)`", families)) == run
    refused = page.split("| refused | because |")[1].split("\n\n")[0]
    names = set(re.findall(r"`([\w-]+)`", refused))
    assert names & run <= {"llama", "granitehybrid", "bert", "nomic-bert"}  # with experts; others
