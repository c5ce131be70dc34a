"""The table of models in docs/models.md says what the catalogue says."""

from llamactl.catalogue import Entry, read_catalogue
from project_files import ROOT

HEAD = "| model | download | board | Pi 4, tokens/s | Pi 5, tokens/s |"


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
    lines = (ROOT / "docs/models.md").read_text(encoding="utf-8").splitlines()
    table = lines[lines.index(HEAD) + 2 :]
    shown = table[: table.index("")]
    assert shown == [row(entry) for entry in read_catalogue().entries]
