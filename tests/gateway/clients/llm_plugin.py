"""llm with llm-ollama, through its own command line: models, and prompts streamed and not."""
# mypy: ignore-errors

import os
import subprocess
import sys
from pathlib import Path

program = str(Path(sys.executable).with_name("llm"))
environment = {**os.environ, "OLLAMA_HOST": os.environ["GATEWAY"], "LLM_USER_PATH": str(Path.cwd())}


def llm(*arguments: str) -> str:
    """Return what a command prints."""
    done = subprocess.run(
        [program, *arguments], env=environment, capture_output=True, text=True, check=False
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
