"""The table of models in README.md says what the catalogue says."""

from llamactl.catalogue import Entry, read_catalogue
from project_files import ROOT


def row(entry: Entry) -> str:
    """Return the line of a model."""
    size = entry.file_bytes / 1e9
    download = f"{size:.1f} GB" if size >= 1 else f"{1000 * size:.0f} MB"
    speeds = [entry.tokens_per_second(board) for board in read_catalogue().boards.values()]
    name = f"`{entry.name}`" + "".join(f" (`{alias}`)" for alias in entry.aliases)
    cells = [f"{entry.title}: {name}", download, entry.memory, *map(speed, speeds)]
    return f"| {' | '.join(cells)} |"


def speed(tokens_per_second: float) -> str:
    return f"{tokens_per_second:.{0 if tokens_per_second >= 10 else 1}f}"


def test_every_model_of_the_catalogue_has_its_line() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    shown = [line for line in lines if line.startswith("| ") and ": `" in line]
    assert shown == [row(entry) for entry in read_catalogue().entries]
