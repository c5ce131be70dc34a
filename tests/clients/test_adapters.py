"""The whole way of an adapter with real processes: pulled, listed, loaded, asked, deleted."""

import json
from pathlib import Path

import pytest

from clients.daemon_process import daemon
from clients.test_end_to_end import finished, folder
from llamad_client import Client, ClientError
from tiny_adapter import TinyAdapter, write_tiny_adapter
from tiny_gguf import TinySpec, write_tiny_model

__all__ = ["folder"]


def test_an_adapter_is_pulled_listed_asked_and_deleted(folder: Path, tmp_path: Path) -> None:
    models = folder / "models"
    models.mkdir()
    write_tiny_model(models / "base.gguf", TinySpec())
    metadata = {"general.base_model.0.name": "Tiny base"}
    file = write_tiny_adapter(tmp_path / "mine.gguf", TinySpec(), TinyAdapter(metadata=metadata))
    config = folder / "llamad.toml"
    (folder / "state").mkdir()
    config.write_text(
        f'[model]\ndirectory = "{models}"\nthreads = 1\n'
        f'[service]\nstate_directory = "{folder / "state"}"\n'
    )
    with daemon(folder, "--config", str(config)) as service:
        service.wait_until_ready()
        done = service.llamactl("pull", str(file))
        assert done.returncode == 0, done.stderr
        assert service.llamactl("use", "base").returncode == 0
        listed = service.llamactl("models").stdout
        assert "ADAPTER" in listed
        assert any(line.startswith("mine ") and "Tiny base" in line for line in listed.splitlines())
        assert "adapters" in service.llamactl("status").stdout
        ask = ("--json", "ask", "--raw", "-n", "16", "--temperature", "0")
        plain, _ = finished(service.llamactl(*ask, "hello"))
        adapted, _ = finished(service.llamactl(*ask, "--adapter", "mine", "hello"))
        weaker, _ = finished(service.llamactl(*ask, "--adapter", "mine:0", "hello"))
        assert plain != adapted
        assert weaker == plain  # F32: what is added is zero
        with Client(service.socket) as client:
            status = client.status()
            assert [(one.name, one.fault) for one in status.adapters] == [("mine", "")]
            assert status.memory is not None
            assert status.memory.adapters_bytes > 0
            job = client.submit("hello", max_tokens=16, temperature=0.0, adapter="mine")
            assert "".join(client.resume(job.job.id)) == adapted
            [[first], [second]] = [
                client.embed(["hello"], pooling="mean", **chosen)  # type: ignore[arg-type]
                for chosen in ({}, {"adapter": "mine"})
            ]
            assert first.values != second.values
            with pytest.raises(ClientError, match="no adapter 'other' is loaded with 'base'"):
                list(client.generate("hello", adapter="other"))
            with pytest.raises(ClientError, match=r"adapter.scale: is 1e\+06"):
                list(client.generate("hello", adapter="mine", adapter_scale=1e6))
        refused = service.llamactl("use", "mine")
        assert refused.returncode == 4
        assert "mine is an adapter (LoRA): it is loaded with its model" in refused.stderr
        assert service.llamactl("rm", "mine").returncode == 0
        names = [
            json.loads(x)["name"]
            for x in service.llamactl("--json", "models").stdout.split("\n")
            if x
        ]
        assert names == ["base"]
