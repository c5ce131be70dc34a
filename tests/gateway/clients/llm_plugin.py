"""llm with llm-ollama, by its command line: prompts, a tool, a schema, vectors, errors, leaving."""
# mypy: ignore-errors

import json
import os
import subprocess
import sys
from pathlib import Path

program = str(Path(sys.executable).with_name("llm"))
environment = {**os.environ, "OLLAMA_HOST": os.environ["GATEWAY"], "LLM_USER_PATH": str(Path.cwd())}


def llm(*arguments: str, host: str = os.environ["GATEWAY"]) -> str:
    """Return what a command prints."""
    done = subprocess.run(
        [program, *arguments],
        env={**environment, "OLLAMA_HOST": host},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


listed = [line for line in llm("models").splitlines() if line.startswith("Ollama: ")]
assert listed, llm("models")
model = listed[0].split()[1]
options = ("-o", "temperature", "0", "-o", "num_predict", "12", "-m", model)
whole = llm("prompt", "Say hello.", "--no-stream", *options)
assert whole.strip()
assert llm("prompt", "Say hello.", *options) == whole
properties = {"on": {"type": "boolean"}}
schema = {"type": "object", "properties": properties, "required": ["on"]}
asked = ("--schema", json.dumps(schema | {"additionalProperties": False}))
state = llm("prompt", "Is it on?", *asked, *options, "-o", "num_predict", "60")
assert json.loads(state)["on"] in (True, False), state
functions = "def lamp(on: bool) -> str:\n    'Switch it.'\n    return 'done'"
assert llm("prompt", "Say hello.", "--functions", functions, "--cl", "2", *options).strip()
vectors = os.environ["VECTORS"]
listed = llm("embed-models", host=vectors).splitlines()
[embedder] = [word for line in listed for word in line.split() if word.startswith("ollama/")]
assert "ollama/" not in llm("embed-models")
assert "ollama/" not in llm("models", host=vectors)
one, other = (
    json.loads(llm("embed", "-m", embedder, "-c", text, host=vectors))
    for text in ("hello", "a lamp")
)
assert len(one) == len(other) > 1
assert one != other
wrong = [program, "prompt", "Hello.", "-m", model, "-o", "temperature", "-1"]
refused = subprocess.run(wrong, env=environment, capture_output=True, text=True, check=False)
assert (refused.returncode != 0, "temperature" in refused.stderr) == (True, True), refused
leaving = subprocess.Popen(
    [program, "prompt", "Count.", "-m", model], env=environment, stdout=subprocess.PIPE
)
assert leaving.stdout.read(1)
leaving.kill()
leaving.wait()
