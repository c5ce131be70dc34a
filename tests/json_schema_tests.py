"""The JSON-Schema-Test-Suite: schemas, and values that fit them or do not, by draft.

``python tests/json_schema_tests.py`` fetches it out of the source distribution of the PyPI package
``jsonschema``, which carries it.
"""

from source_distribution import BUILD, SourceDistribution

SOURCE = SourceDistribution(
    "jsonschema",
    "4.26.0",
    "0c26707e2efad8aa1bfc5b7ce170f3fccc2e4918ff85989ba9ffa9facb2be326",
    "json/tests",
    BUILD / "json-schema-tests",
)
FOLDER, MISSING = SOURCE.folder, SOURCE.missing

if __name__ == "__main__":
    SOURCE.fetch()
