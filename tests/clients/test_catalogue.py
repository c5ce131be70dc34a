"""The catalogue of models: every field, and its numbers against the models' published shapes."""

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

import pytest

from bench.shapes import SHAPES as SPECS
from clients.running import running_service
from llamactl.catalogue import Catalogue, Entry, read_catalogue
from llamactl.command_line import run as main
from llamactl.commands import models
from llamad.door.capacity import Capacity
from llamad.engine.bindings import row_bytes
from llamad.memory.plan import PROCESS_BYTES
from llamad.ranges import Integer
from llamad.sampling.parameters import PARAMETERS
from llamad_client import Failed, Refused
from llamad_tools.advice.recommendation import BOARD_BANDWIDTH, SYSTEM_BYTES
from llamad_tools.quantize.mixes import MIXES, MixedModel, is_quantizable, tensor_type
from tiny_gguf import TinySpec, matrices, vectors

GIB = 1 << 30
MOST_HEADER_BYTES = 8_500_000  # a vocabulary of 150,000 words with its merges
OTHER_TYPES_SHARE = 0.03  # of a file: by so much those differ whose makers chose types themselves
LICENCES = {  # and whether they have conditions
    "Apache-2.0": False,
    "Qwen Research License": True,
    "Llama 2 Community License": True,
    "Llama 3.2 Community License": True,
    "Gemma Terms of Use": True,
    "LFM Open License v1.0": True,
}


@dataclass(frozen=True, slots=True)
class Shape:
    """What the makers of a model publish of it, and the mix of the file. Counts."""

    mix: str
    layers: int
    dim: int
    hidden_dim: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    context: int
    tied: bool = True
    biases: bool = False
    head_norms: bool = False
    rope_factors: int = 0

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield names and shapes, the row length first."""
        yield "token_embd.weight", (self.dim, self.vocab_size)
        yield "output_norm.weight", (self.dim,)
        if not self.tied:
            yield "output.weight", (self.dim, self.vocab_size)
        if self.rope_factors:
            yield "rope_freqs.weight", (self.rope_factors,)
        query, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        for layer in range(self.layers):
            of_layer: dict[str, tuple[int, ...]] = {
                "attn_norm.weight": (self.dim,),
                "attn_q.weight": (self.dim, query),
                "attn_k.weight": (self.dim, kv),
                "attn_v.weight": (self.dim, kv),
                "attn_output.weight": (query, self.dim),
                "ffn_norm.weight": (self.dim,),
                "ffn_gate.weight": (self.dim, self.hidden_dim),
                "ffn_up.weight": (self.dim, self.hidden_dim),
                "ffn_down.weight": (self.hidden_dim, self.dim),
            }
            if self.biases:
                of_layer |= {"attn_q.bias": (query,), "attn_k.bias": (kv,), "attn_v.bias": (kv,)}
            if self.head_norms:
                norm = (self.head_dim,)
                of_layer |= {"attn_q_norm.weight": norm, "attn_k_norm.weight": norm}
            for name, shape in of_layer.items():
                yield f"blk.{layer}.{name}", shape

    def tensor_bytes(self) -> dict[str, int]:
        """Return the bytes of every tensor in the mix, as our quantize would write it."""
        model = MixedModel(self.layers, gqa=self.heads // self.kv_heads, tied_output=self.tied)
        return _bytes_of(self.tensors(), self.mix, model)

    @property
    def unread(self) -> tuple[str, ...]:
        """The tables of which a token reads a row."""
        return () if self.tied else ("token_embd.weight",)

    def kv_bytes(self, n_tokens: int) -> int:
        """Return the bytes of keys and values as Q8_0, with a scale of 16 bits for 32 numbers."""
        return n_tokens * 2 * self.layers * self.kv_heads * (self.head_dim + self.head_dim // 16)


@dataclass(frozen=True, slots=True)
class NewShape:
    """The same of a family whose layers are not all alike, as the tests write its small files.

    types: of tensors, where the makers of the file did not take the mix's. own_types: they chose
    some of which nothing is known.
    """

    spec: TinySpec
    context: int
    types: dict[str, str] = field(default_factory=dict)
    own_types: bool = False
    unread: tuple[str, ...] = ()

    def tensor_bytes(self) -> dict[str, int]:
        """Return the bytes of every tensor in the mix, as our quantize would write it."""
        spec, layers = self.spec, range(self.spec.n_layers)
        model = MixedModel(
            spec.n_layers,
            value_layers=tuple(i for i in layers if i not in spec.recurrent and spec.has_kv(i)),
            gqa=spec.n_heads // spec.n_kv_heads,
            tied_output=spec.tied_output,
        )
        tensors = [(name, shape[::-1]) for name, shape in matrices(spec)]
        tensors += [(name, (length,)) for name, length, _ in vectors(spec)]
        return _bytes_of(tensors, "Q4_K_M", model, self.types)

    def kv_bytes(self, n_tokens: int) -> int:
        """Return the bytes of keys and values as in ``Shape``, as if no layer had a window."""
        spec = self.spec
        heads = sum(
            spec.kv_heads(layer) * (spec.head(layer) + spec.head(layer) // 16)
            for layer in range(spec.n_layers)
            if layer not in spec.recurrent and spec.has_kv(layer)
        )
        return n_tokens * 2 * heads


def _bytes_of(
    tensors: Iterable[tuple[str, tuple[int, ...]]],
    mix: str,
    model: MixedModel,
    types: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, int]:
    sizes = {}
    for name, shape in tensors:
        type_name = types.get(name, "F32")
        if name not in types and is_quantizable(name, shape):
            type_name = tensor_type(MIXES[mix], name, shape, model)
        rows = shape[1] if len(shape) > 1 else 1
        sizes[name] = rows * row_bytes(type_name, shape[0])
    return sizes


QWEN35 = SPECS["qwen35-2b"]
QWEN35_4B = replace(
    QWEN35,
    dim=2560,
    hidden_dim=9216,
    n_layers=32,
    n_heads=16,
    n_kv_heads=4,
    delta_v_heads=32,
    recurrent=tuple(i for i in range(32) if i % 4 != 3),
)
SMOLLM3 = TinySpec(
    architecture="smollm3",
    dim=2048,
    hidden_dim=11008,
    n_layers=36,
    n_heads=16,
    n_kv_heads=4,
    head_dim=128,
    vocab_size=128_256,
    tied_output=True,
)
MINISTRAL3 = TinySpec(
    architecture="mistral3",
    dim=3072,
    hidden_dim=9216,
    n_layers=26,
    n_heads=32,
    n_kv_heads=8,
    head_dim=128,
    vocab_size=131_072,
    tied_output=True,
)
ROWS = "per_layer_token_embd.weight"

# From config.json of the original models. Qwen's own files store the output matrix although it is
# the embedding of the small models; others do not.
SHAPES: dict[str, Shape | NewShape] = {
    "smollm2-135m": Shape("Q4_1", 30, 576, 1536, 9, 3, 64, 49152, 8192),
    "smollm2-360m": Shape("Q8_0", 32, 960, 2560, 15, 5, 64, 49152, 8192),
    "smollm2-1.7b": Shape("Q4_K_M", 24, 2048, 8192, 32, 32, 64, 49152, 8192),
    "qwen2.5-0.5b": Shape(
        "Q4_K_M", 24, 896, 4864, 14, 2, 64, 151936, 32768, tied=False, biases=True
    ),
    "qwen2.5-1.5b": Shape(
        "Q4_K_M", 28, 1536, 8960, 12, 2, 128, 151936, 32768, tied=False, biases=True
    ),
    "qwen2.5-3b": Shape(
        "Q4_K_M", 36, 2048, 11008, 16, 2, 128, 151936, 32768, tied=False, biases=True
    ),
    "qwen2.5-7b": Shape(
        "Q4_K_M", 28, 3584, 18944, 28, 4, 128, 152064, 32768, tied=False, biases=True
    ),
    "qwen3-0.6b": Shape("Q8_0", 28, 1024, 3072, 16, 8, 128, 151936, 40960, head_norms=True),
    "qwen3-1.7b": Shape("Q8_0", 28, 2048, 6144, 16, 8, 128, 151936, 40960, head_norms=True),
    "qwen3-4b": Shape("Q4_K_M", 36, 2560, 9728, 32, 8, 128, 151936, 40960, head_norms=True),
    "llama3.2-1b": Shape("Q4_K_M", 16, 2048, 8192, 32, 8, 64, 128256, 131072, rope_factors=32),
    "llama3.2-3b": Shape("Q4_K_M", 28, 3072, 8192, 24, 8, 128, 128256, 131072, rope_factors=64),
    "tinyllama-1.1b": Shape("Q4_K_M", 22, 2048, 5632, 32, 4, 64, 32000, 2048, tied=False),
    "mistral-7b": Shape("Q4_K_M", 32, 4096, 14336, 32, 8, 128, 32768, 32768, tied=False),
    "llama2-7b": Shape("Q4_K_M", 32, 4096, 11008, 32, 32, 128, 32000, 4096, tied=False),
    "qwen3.5-0.8b": NewShape(replace(QWEN35, dim=1024, hidden_dim=3584), 262_144, own_types=True),
    "qwen3.5-2b": NewShape(QWEN35, 262_144, own_types=True),
    "qwen3.5-4b": NewShape(QWEN35_4B, 262_144, own_types=True),
    "gemma3-1b": NewShape(SPECS["gemma3-1b"], 32_768),
    "gemma4-e2b": NewShape(
        SPECS["gemma4-e2b"],
        131_072,
        {ROWS: "Q5_K", "per_layer_model_proj.weight": "BF16"},
        own_types=True,
        unread=(ROWS,),
    ),
    "lfm2.5-1.2b": NewShape(SPECS["lfm2-1.2b"], 128_000),
    "smollm3-3b": NewShape(SMOLLM3, 65_536),
    "ministral3-3b": NewShape(MINISTRAL3, 262_144),
}

CATALOGUE = read_catalogue()
ENTRIES = {entry.name: entry for entry in CATALOGUE.entries}


@pytest.fixture(params=ENTRIES)
def entry(request: pytest.FixtureRequest) -> Entry:
    return ENTRIES[request.param]


def test_every_model_has_a_shape_here() -> None:
    assert set(ENTRIES) == set(SHAPES)


def test_names_and_aliases_are_unique_and_can_be_names_of_models() -> None:
    names = [name for entry in CATALOGUE.entries for name in (entry.name, *entry.aliases)]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,127}", name) for name in names)


def test_fields_are_of_their_types(entry: Entry) -> None:
    types = {field.name: type(getattr(entry, field.name)) for field in dataclasses.fields(entry)}
    numbers = {"file_bytes", "bytes_per_token", "context"}
    assert {name for name, kind in types.items() if kind is int} == numbers
    assert {name for name, kind in types.items() if kind is not str} == {
        *numbers,
        "aliases",
        "sampling",
    }
    assert entry.title


def test_the_address_names_a_commit_of_a_repository(entry: Entry) -> None:
    url = urlsplit(entry.url)
    assert (url.scheme, url.netloc, url.query) == ("https", "huggingface.co", "")
    assert re.fullmatch(r"/[\w.-]+/[\w.-]+/resolve/[0-9a-f]{40}/[\w.-]+\.gguf", url.path)


def test_the_sha256_is_one_or_not_known(entry: Entry) -> None:
    assert re.fullmatch(r"([0-9a-f]{64})?", entry.sha256)


def test_the_demo_is_the_file_that_make_demo_fetches() -> None:
    script = Path(__file__).parents[2] / "packaging" / "fetch_demo_model.py"
    assert f'SHA256 = "{CATALOGUE.find("demo").sha256}"' in script.read_text(encoding="utf-8")


def test_the_licence_is_known_and_its_conditions_are_said(entry: Entry) -> None:
    assert bool(entry.conditions) == LICENCES[entry.licence]


def test_the_size_is_that_of_the_tensors_and_a_header(entry: Entry) -> None:
    shape = SHAPES[entry.name]
    header = entry.file_bytes - sum(shape.tensor_bytes().values())
    most = MOST_HEADER_BYTES
    if isinstance(shape, NewShape) and shape.own_types:
        most = round(OTHER_TYPES_SHARE * entry.file_bytes)
    assert 0 < header < most


def test_a_token_reads_every_matrix_but_the_embedding(entry: Entry) -> None:
    shape = SHAPES[entry.name]
    sizes = shape.tensor_bytes()
    unread = sum(sizes[name] for name in shape.unread)
    assert entry.bytes_per_token == sum(sizes.values()) - unread
    assert entry.context == shape.context


def test_the_memory_is_the_smallest_board_that_keeps_the_file(entry: Entry) -> None:
    shape = SHAPES[entry.name]
    sizes = shape.tensor_bytes()
    rows = sizes.get(ROWS, 0)  # read where a token needs one
    needed = entry.file_bytes - rows + shape.kv_bytes(2048) + PROCESS_BYTES + SYSTEM_BYTES
    needed += Capacity().memory_bytes
    assert entry.memory == ("4 GB" if needed < 4 * GIB else "8 GB")
    assert needed < 8 * GIB


def test_the_boards_are_those_that_fit_computes_with() -> None:
    boards = {name: board.bytes_per_second for name, board in CATALOGUE.boards.items()}
    assert boards == BOARD_BANDWIDTH
    assert all(board.speed_source.startswith("computed; ") for board in CATALOGUE.boards.values())


def test_the_list_is_printed_without_a_service(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMAD_SOCKET", "/nonexistent/llamad.sock")
    assert main(["models", "--catalogue"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["NAME", "SIZE", "BOARD", "Pi", "4", "Pi", "5", "LICENCE"]
    assert lines[1].split() == (
        ["smollm2-135m/demo", "98.4", "MB", "4", "GB", "46.6", "108.7", "Apache-2.0"]
    )
    assert len([line for line in lines if re.search(r"  \d GB ", line)]) == len(ENTRIES)
    assert "not measured" in lines[-2]


def test_the_list_as_json_has_the_speeds_and_their_sources(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--json", "models", "--catalogue"]) == 0
    for line in capsys.readouterr().out.splitlines():
        values = json.loads(line)
        entry = ENTRIES[values["name"]]
        for board, bandwidth in BOARD_BANDWIDTH.items():
            expected = round(bandwidth / entry.bytes_per_token, 1)
            assert values["tokens_per_second"][board] == expected
            assert values["speed_source"][board] == CATALOGUE.boards[board].speed_source


@pytest.mark.parametrize(
    ("name", "near"), [("smolm2-135m", "smollm2-135m"), ("Qwen3-8B", "qwen3-4b"), ("dem", "demo")]
)
def test_an_unknown_name_lists_near_ones(name: str, near: str) -> None:
    with pytest.raises(Refused) as caught:
        CATALOGUE.find(name)
    assert near in caught.value.message
    assert caught.value.reason == "NOT_FOUND"


def test_a_name_is_found_in_any_case_and_by_its_alias() -> None:
    assert CATALOGUE.find("QWEN3-4B").name == "qwen3-4b"
    assert CATALOGUE.find("demo").name == "smollm2-135m"


def test_another_catalogue_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text("models = []\n[boards]\n", encoding="utf-8")
    monkeypatch.setenv("LLAMAD_CATALOGUE", str(path))
    assert read_catalogue() == Catalogue({}, ())


SAMPLING = "boards = {}\nmodels = [{aliases = [], sampling = {temperature = 'hot'}}]"


@pytest.mark.parametrize(
    "text",
    ["models = 5", "x", "boards = {}", "boards = {}\nmodels = [{name = 'x'}]", SAMPLING, None],
)
def test_a_broken_or_missing_catalogue_is_named(
    text: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "own.toml"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    monkeypatch.setenv("LLAMAD_CATALOGUE", str(path))
    with pytest.raises(Failed) as caught:
        read_catalogue()
    assert str(path) in caught.value.message


def test_a_binary_catalogue_is_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_bytes(b"\xff\xfe")
    monkeypatch.setenv("LLAMAD_CATALOGUE", str(path))
    with pytest.raises(Failed, match="is broken"):
        read_catalogue()


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no service be there."""
    monkeypatch.setenv("LLAMAD_SOCKET", "/nonexistent/s")


@pytest.mark.usefixtures("nobody")
def test_the_list_fits_80_columns_and_has_every_note(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) < 80
    text = " ".join(" ".join(lines).split())
    for entry in CATALOGUE.entries:
        assert entry.note in text
        assert entry.licence in text


@pytest.mark.usefixtures("nobody")
def test_words_choose_in_any_case(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json", "search", "QWEN", "3b"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["name"] for line in lines] == ["qwen2.5-3b"]
    assert main(["search", "nonsense"]) == 0
    assert "no model of the catalogue is like that; " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("gigabytes", "boards"),
    [(1.9, set()), (3.7, {"4 GB"}), (7.6, {"4 GB", "8 GB"}), (15.0, {"4 GB", "8 GB"})],
)
def test_what_fits_is_for_a_board_of_this_memory(gigabytes: float, boards: set[str]) -> None:
    chosen = models.select(CATALOGUE.entries, [], int(gigabytes * (1 << 30)))
    assert {entry.memory for entry in chosen} == boards


@pytest.mark.usefixtures("nobody")
def test_fits_means_the_catalogue(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(models, "machine_bytes", lambda: 4_000_000_000)
    assert main(["--json", "models", "--fits"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["memory"] for line in lines} == {"4 GB"}


def test_models_that_the_service_has_are_marked(capsys: pytest.CaptureFixture[str]) -> None:
    with running_service() as service:
        (service.service.models / "smollm2-135m.gguf").write_bytes(b"")
        assert main(["--socket", str(service.path), "search", "smol"]) == 0
        marked = [
            line.split()[1] for line in capsys.readouterr().out.splitlines() if line[:1] == "*"
        ]
    assert marked[0] == "smollm2-135m/demo"
    assert "smollm2-360m" not in marked


def test_recommended_sampling_has_the_names_and_ranges_of_the_service(entry: Entry) -> None:
    for name, value in entry.sampling.items():
        whole = isinstance(PARAMETERS[name].range, Integer)
        PARAMETERS[name].check(int(value) if whole else value)
        assert not name.endswith("_penalty")  # the catalogue's head says why
