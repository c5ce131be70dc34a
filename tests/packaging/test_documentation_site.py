"""The documentation site: its sections, what is copied for it, and what its checks find.

`make site` builds it and runs the checks; mkdocs is not needed here.
"""

from pathlib import Path

from documentation_site import API, HOME, INDEX, faults, sections, stage

from project_files import ROOT


def page(site: Path, name: str, body: str) -> None:
    (site / name).write_text(f"<html><body>{body}</body></html>")


def test_every_page_of_the_docs_has_its_place_in_a_section() -> None:
    shown = [name for _, pages in sections(ROOT) for name in pages]
    pages = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}
    assert pages - {INDEX} <= set(shown)
    assert len(shown) == len(set(shown))
    assert [title for title, _ in sections(ROOT)] == ["Use it", "Change it", "Know it"]


def test_what_pages_link_to_is_copied_with_them(tmp_path: Path) -> None:
    api = tmp_path / "api.md"
    api.write_text("# API\n")
    stage(ROOT, api, tmp_path / "source")
    copied = {str(path.relative_to(tmp_path / "source")) for path in tmp_path.rglob("source/**/*")}
    assert copied >= {HOME, INDEX, API, "ARCHITECTURE.md", "native/README.md", "LICENSE"}
    assert "docs/pictures/first-run.svg" in copied


def test_a_good_page_has_no_fault(tmp_path: Path) -> None:
    page(tmp_path, "a.html", "<h1 id=x>A</h1><a href=#x>x</a><a href=b.html#y>y</a>")
    page(tmp_path, "b.html", "<h1 id=y>B</h1><code>[x](#no) ```</code><a href=https://e.org>e</a>")
    assert list(faults(tmp_path)) == []


def test_each_kind_of_fault_is_found(tmp_path: Path) -> None:
    page(tmp_path, "a.html", "<a href=gone.html>x</a><a href=#gone>y</a><a href=a.html#z>z</a>")
    page(tmp_path, "b.html", "<img src=gone.svg><script src=https://cdn.example/x.js></script>")
    page(tmp_path, "c.html", "<p>Two things:\n- one\n- two</p><p>```</p><p>[a](b.md)</p>")
    assert list(faults(tmp_path)) == [
        "a.html: links to gone.html, which is not there",
        "a.html: links to #gone, which has no such heading",
        "a.html: links to a.html#z, which has no such heading",
        "b.html: links to gone.svg, which is not there",
        "b.html: fetches https://cdn.example/x.js",
        "c.html: shows '- one' as it is written",
        "c.html: shows '- two' as it is written",
        "c.html: shows '```' as it is written",
        "c.html: shows '](b.md)' as it is written",
    ]
