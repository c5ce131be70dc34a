"""Models on the machine: names and links, CPUs and memory."""

import errno
import os
from pathlib import Path

import pytest

from llamad.errors import ErrorKind, LlamadError
from llamad.memory.machine import Machine
from llamad.store.registry import ModelRegistry, check_name


def _error(registry: ModelRegistry, model: str) -> LlamadError:
    with pytest.raises(LlamadError) as error:
        registry.resolve(model)
    return error.value


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


def _model(folder: Path, name: str, n_bytes: int = 3) -> Path:
    path = folder / f"{name}.gguf"
    path.write_bytes(b"x" * n_bytes)
    return path


# ---- registry ---------------------------------------------------------------------------------


def test_models_are_the_gguf_files_of_the_directory_by_name(folder: Path) -> None:
    _model(folder, "small.Q4_0", 7)
    _model(folder, "big")
    (folder / "notes.txt").write_text("no model")
    (folder / "folder.gguf").mkdir()
    os.mkfifo(folder / "pipe.gguf")
    found = ModelRegistry(folder).scan()
    assert [(m.name, m.file_bytes) for m in found] == [("big", 3), ("small.Q4_0", 7)]
    assert ModelRegistry(folder).resolve("small.Q4_0").path == folder / "small.Q4_0.gguf"


def test_a_link_inside_the_directory_is_a_model_and_one_that_leaves_it_is_not(
    folder: Path, tmp_path: Path
) -> None:
    _model(folder, "real")
    (folder / "alias.gguf").symlink_to("real.gguf")
    (folder / "outside.gguf").symlink_to(_model(tmp_path, "secret"))
    (folder / "dangling.gguf").symlink_to("nothing.gguf")
    (folder / "loop.gguf").symlink_to("loop.gguf")
    registry = ModelRegistry(folder)
    assert [model.name for model in registry.scan()] == ["alias", "real"]
    assert _error(registry, "outside").reason == "MODEL_NOT_FOUND"


def test_a_model_directory_may_itself_be_a_link(folder: Path, tmp_path: Path) -> None:
    _model(folder, "m")
    (tmp_path / "link").symlink_to(folder)
    assert [model.name for model in ModelRegistry(tmp_path / "link").scan()] == ["m"]


@pytest.mark.parametrize("model", ["", "m"])
def test_a_missing_directory_has_no_models_and_is_told_as_such(tmp_path: Path, model: str) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    for name, why in (
        ("none", "none does not exist"),
        ("none/models", f"does not exist, nor does {tmp_path}/none"),
        ("link", "link is a link to nowhere, which does not exist"),
    ):
        registry = ModelRegistry(tmp_path / name)
        assert registry.scan() == []
        error = _error(registry, model)
        assert (error.kind, error.reason) == (ErrorKind.NOT_FOUND, "MODEL_DIRECTORY_MISSING")
        assert why in error.message


def test_a_directory_that_is_none_or_cannot_be_read_is_told_as_such(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    (tmp_path / "loop").symlink_to("loop")
    for path, why in ((file, "Not a directory"), (tmp_path / "loop", "loop")):
        error = _error(ModelRegistry(path), "")
        assert error.reason == "MODEL_DIRECTORY_UNREADABLE"
        assert str(path) in error.message
        assert why in error.message

    def refuse(path: Path) -> list[str]:  # root, who may run this, reads every folder
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", refuse)
    assert "Permission denied" in _error(ModelRegistry(folder), "").message


def test_a_file_of_the_directory_that_is_no_model_is_refused_by_what_it_is(
    folder: Path, tmp_path: Path
) -> None:
    (folder / "dangling.gguf").symlink_to("nothing.gguf")
    (folder / "outside.gguf").symlink_to(_model(tmp_path, "secret"))
    (folder / "folder.gguf").mkdir()
    registry = ModelRegistry(folder)
    assert "is a link to nothing.gguf, which does not" in _error(registry, "dangling").message
    assert f"out of the directory, to {tmp_path}/secret" in _error(registry, "outside").message
    assert "is no regular file" in _error(registry, "folder").message
    path = f"{folder}/dangling.gguf"
    assert "is a link to nothing.gguf, which does not" in _error(registry, path).message


def test_a_path_may_lie_anywhere(folder: Path, tmp_path: Path) -> None:
    path = _model(tmp_path, "elsewhere")
    model = ModelRegistry(folder).resolve(str(path))
    assert (model.name, model.path, model.file_bytes) == ("elsewhere", path, 3)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("none.gguf", "MODEL_NOT_FOUND"),
        ("folder.gguf", "MODEL_UNREADABLE"),
        ("pipe.gguf", "MODEL_UNREADABLE"),
        ("a\0b.gguf", "MODEL_UNREADABLE"),
        (os.fsdecode(b"a\xff.gguf"), "MODEL_UNREADABLE"),
    ],
)
def test_a_path_that_is_no_regular_file_is_refused(folder: Path, name: str, reason: str) -> None:
    (folder / "folder.gguf").mkdir()
    os.mkfifo(folder / "pipe.gguf")
    assert _error(ModelRegistry(folder), f"{folder}/{name}").reason == reason


def test_a_device_is_no_model(folder: Path) -> None:
    assert "not a regular file" in _error(ModelRegistry(folder), "/dev/zero").message


def test_no_name_means_the_only_model(folder: Path) -> None:
    registry = ModelRegistry(folder)
    assert _error(registry, "").reason == "MODEL_NOT_FOUND"
    _model(folder, "one")
    assert registry.resolve("").name == "one"
    _model(folder, "two")
    error = _error(registry, "")
    assert error.reason == "MODEL_AMBIGUOUS"
    assert "one, two" in error.message


@pytest.mark.parametrize("name", [b"a\xff", b"a\nb", b"a\x1b[2J", b"a" * 241])
def test_files_whose_names_cannot_be_shown_are_no_models(folder: Path, name: bytes) -> None:
    (folder / os.fsdecode(name + b".gguf")).write_bytes(b"GGU")
    registry = ModelRegistry(folder)
    assert registry.scan() == []
    with pytest.raises(LlamadError, match="name: "):
        check_name(os.fsdecode(name))


def test_hidden_files_are_no_models(folder: Path) -> None:
    _model(folder, ".hidden")
    (folder / ".a.gguf.part").write_bytes(b"x")
    assert ModelRegistry(folder).scan() == []


def test_the_selected_model_is_loaded_as_long_as_it_is_there(folder: Path) -> None:
    registry = ModelRegistry(folder)
    _model(folder, "one")
    _model(folder, "two")
    registry.select("two")
    assert registry.resolve("").name == "two"
    registry.select("one")
    assert (registry.selected(), registry.resolve("").name) == ("one", "one")
    registry.path_of("one").unlink()
    assert registry.resolve("").name == "two"
    _model(folder, "three")
    assert _error(registry, "").reason == "MODEL_AMBIGUOUS"
    assert '"llamactl use NAME"' in _error(registry, "").message


@pytest.mark.parametrize(
    "garbage", [b"", b"../x\n", b"\xff\xfe", b"\0" * 9, b"a\nb\n", b"x" * 9999]
)
def test_garbage_in_place_of_a_selection_is_ignored_with_a_warning(
    folder: Path, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    _model(folder, "one")
    (folder / ".selected").write_bytes(garbage)
    assert ModelRegistry(folder).resolve("").name == "one"
    assert "selected model ignored" in caplog.text


def test_removing_a_model_removes_its_part_and_its_selection(folder: Path) -> None:
    registry = ModelRegistry(folder)
    _model(folder, "one", 7)
    (folder / ".one.gguf.part").write_bytes(b"12345")
    (folder / ".one.gguf.part.json").write_bytes(b"{}")
    registry.select("one")
    assert registry.remove("one") == 12
    assert list(folder.iterdir()) == []
    assert registry.selected() == ""


def test_a_part_without_a_model_can_be_removed(folder: Path) -> None:
    (folder / ".one.gguf.part").write_bytes(b"12345")
    assert ModelRegistry(folder).remove("one") == 5
    with pytest.raises(LlamadError) as error:
        ModelRegistry(folder).remove("one")
    assert error.value.reason == "MODEL_NOT_FOUND"


def test_removing_a_link_leaves_what_it_points_to(folder: Path, tmp_path: Path) -> None:
    target = _model(tmp_path, "real", 1000)
    (folder / "alias.gguf").symlink_to(target)
    assert ModelRegistry(folder).remove("alias") < 1000
    assert target.stat().st_size == 1000
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ["", "a/b", "../real", "/etc/x", ".hidden", "a\0b", "x" * 241])
def test_a_name_that_could_leave_the_directory_is_not_removed(folder: Path, name: str) -> None:
    _model(folder.parent, "real")
    with pytest.raises(LlamadError) as error:
        ModelRegistry(folder).remove(name)
    assert (error.value.kind, error.value.reason) == (ErrorKind.INVALID, "INVALID_NAME")
    assert (folder.parent / "real.gguf").exists()


# ---- machine ----------------------------------------------------------------------------------


def _machine(tmp_path: Path, cgroup: str, available_kib: int = 4_000_000) -> Machine:
    proc = tmp_path / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text(cgroup)
    (proc / "meminfo").write_text(f"MemTotal: 9000000 kB\nMemAvailable:   {available_kib} kB\n")
    return Machine(proc, tmp_path / "cgroup")


def _files(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


def test_without_cgroups_memory_is_what_the_kernel_says(tmp_path: Path) -> None:
    assert _machine(tmp_path, "").available_bytes() == 4_000_000 * 1024
    assert Machine(tmp_path / "none", tmp_path / "none").available_bytes() is None


def test_a_v2_limit_counts_with_its_page_cache_as_room(tmp_path: Path) -> None:
    machine = _machine(tmp_path, "0::/system.slice/llamad.service\n")
    unit = tmp_path / "cgroup" / "system.slice" / "llamad.service"
    _files(
        unit,
        memory__max="1000000",
        memory__current="600000",
        memory__stat="anon 100000\ninactive_file 300000\nactive_file 100000",
    )
    assert machine.available_bytes() == 800_000


def test_the_tightest_cgroup_above_the_process_counts(tmp_path: Path) -> None:
    machine = _machine(tmp_path, "0::/a/b\n")
    _files(tmp_path / "cgroup" / "a" / "b", memory__max="max", memory__current="10")
    _files(tmp_path / "cgroup" / "a", memory__max="5000", memory__current="1000")
    assert machine.available_bytes() == 4000


def test_the_limit_above_which_a_cgroup_is_slowed_down_counts_too(tmp_path: Path) -> None:
    machine = _machine(tmp_path, "0::/a/b\n")
    _files(
        tmp_path / "cgroup" / "a" / "b",
        memory__max="9000",
        memory__high="3000",
        memory__current="1000",
    )
    _files(tmp_path / "cgroup" / "a", memory__max="max", memory__high="max", memory__current="5")
    assert machine.available_bytes() == 2000


def test_a_v1_limit_counts(tmp_path: Path) -> None:
    machine = _machine(tmp_path, "5:cpu,cpuacct:/x\n4:memory:/job\n")
    _files(
        tmp_path / "cgroup" / "memory" / "job",
        memory__limit_in_bytes="2000",
        memory__usage_in_bytes="1500",
        memory__stat="total_inactive_file 400\ntotal_active_file 0",
    )
    assert machine.available_bytes() == 900


def test_a_cgroup_over_its_limit_has_no_room(tmp_path: Path) -> None:
    machine = _machine(tmp_path, "0::/a\n")
    _files(tmp_path / "cgroup" / "a", memory__max="1000", memory__current="3000")
    assert machine.available_bytes() == 0


@pytest.mark.parametrize(
    ("cgroup", "folder", "files", "cpus"),
    [
        ("0::/a\n", "a", {"cpu__max": "100000 100000"}, 1),
        ("0::/a\n", "a", {"cpu__max": "max 100000"}, None),
        ("0::/a/b\n", "a", {"cpu__max": "50000 100000"}, 1),
        (
            "3:cpu,cpuacct:/a\n",
            "cpu/a",
            {"cpu__cfs_quota_us": "-1", "cpu__cfs_period_us": "9"},
            None,
        ),
        ("3:cpu:/a\n", "cpu/a", {"cpu__cfs_quota_us": "9", "cpu__cfs_period_us": "9"}, 1),
    ],
)
def test_a_cpu_quota_bounds_the_cpus(
    tmp_path: Path, cgroup: str, folder: str, files: dict[str, str], cpus: int | None
) -> None:
    machine = _machine(tmp_path, cgroup)
    _files(tmp_path / "cgroup" / folder, **files)
    assert machine.cpus() == (len(os.sched_getaffinity(0)) if cpus is None else cpus)


def test_a_device_tree_makes_a_board(tmp_path: Path) -> None:
    assert not Machine(proc=tmp_path).is_board()
    (tmp_path / "device-tree").mkdir()
    (tmp_path / "device-tree" / "model").write_text("Raspberry Pi 5 Model B Rev 1.0")
    assert Machine(proc=tmp_path).is_board()
