"""llama.cpp's server makes vectors, out of the PyPI package ``xllamacpp``: the peer's process.

    python tests/bench/peer_vectors.py MODEL N_THREADS

A line of stdin is a JSON list of texts; the answer is a line with the seconds that it took and the
first vector. Imports nothing of ours, so that a Python that has the package alone can run it.
"""

import json
import os
import sys
import time

import xllamacpp

SLOTS = 16  # texts at once
MOST_TOKENS = 512  # of a text
BATCH = 2048  # tokens of a step


def main() -> None:
    """Serve until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the library prints is no answer
    parameters = xllamacpp.CommonParams()
    parameters.model.path = sys.argv[1]
    parameters.embedding = True
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = int(sys.argv[2])
    parameters.n_parallel = SLOTS
    parameters.n_ctx = SLOTS * MOST_TOKENS
    parameters.n_batch = parameters.n_ubatch = BATCH
    parameters.ui = False
    server = xllamacpp.Server(parameters)
    for line in sys.stdin:
        texts = json.loads(line)
        begin = time.perf_counter()
        answer = server.handle_embeddings({"input": texts})
        seconds = time.perf_counter() - begin
        data = (answer if isinstance(answer, dict) else json.loads(answer))["data"]
        if len(data) != len(texts):
            raise SystemExit(f"{len(texts)} texts, {len(data)} vectors")
        print(json.dumps([seconds, data[0]["embedding"]]), file=answers, flush=True)


if __name__ == "__main__":
    main()
