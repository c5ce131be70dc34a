"""Write the fuzzer's seeds into corpus/: bad files, good ones, a tiny model, keys of each family.

Run from anywhere: ``python native/fuzz/make_corpus.py``. The seeds are committed; run it again when
the cases in tests/engine/bad_gguf.py or tests/family_models.py change.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests"))

from engine.bad_gguf import BAD_FILES, GOOD_FILES  # noqa: E402
from engine.gguf_bytes import model  # noqa: E402
from family_models import FAMILY_MODELS  # noqa: E402
from tiny_gguf import encode_gguf, metadata_of  # noqa: E402


def seeds() -> dict[str, bytes]:
    """Return the corpus by file name."""
    result = {f"bad-{bad.name}": bad.content for bad in BAD_FILES}
    result |= {f"good-{name}": content for name, content in GOOD_FILES.items()}
    for name, spec in FAMILY_MODELS.items():
        keys = {key: value for key, value in metadata_of(spec).items() if "tokenizer" not in key}
        result[f"family-{name}"] = encode_gguf(keys, [])
    return result | {"model": model()}


def main() -> None:
    """Replace the contents of corpus/."""
    folder = HERE / "corpus"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for name, content in seeds().items():
        (folder / name).write_bytes(content)


if __name__ == "__main__":
    main()
