"""llama.cpp's vocabularies, their texts and ids, and its chat templates: the folder ``models``.

``python tests/llama_cpp_source.py`` fetches it (77 MB) out of the source distribution of the PyPI
package ``llama-cpp-python``, which carries llama.cpp's sources.
"""

from source_distribution import BUILD, SourceDistribution

SOURCE = SourceDistribution(
    "llama-cpp-python",
    "0.3.36",
    "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e",
    "vendor/llama.cpp/models",
    BUILD / "llama-cpp",
)
FOLDER, MISSING = SOURCE.folder, SOURCE.missing

if __name__ == "__main__":
    SOURCE.fetch()
