"""The digest of a model file: the same for a copy, another for any file that differs."""

from pathlib import Path

from llamad.gguf.digest import HEAD_BYTES, model_digest


def test_a_copy_has_the_same_digest_and_another_file_has_not(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    content = bytearray(range(256)) * ((4 * HEAD_BYTES) // 256)
    digests = set()
    for change in (None, 0, HEAD_BYTES - 1, len(content) - 1):
        changed = bytearray(content)
        if change is not None:
            changed[change] ^= 1
        file.write_bytes(changed)
        digests.add(model_digest(file))
    file.write_bytes(content + b"\0")
    digests.add(model_digest(file))
    assert len(digests) == 5
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(content + b"\0")
    assert model_digest(copy) == model_digest(file)
    assert len(model_digest(file)) == 32


def test_an_empty_file_and_a_short_one_have_one(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "short").write_bytes(b"GGUF")
    assert model_digest(tmp_path / "empty") != model_digest(tmp_path / "short")
