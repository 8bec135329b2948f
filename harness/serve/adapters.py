"""Adapters of a running server, exchanged over HTTP (a server of a plan with `adapters_change`)."""

from pathlib import Path

from harness.errors import ServerFault
from harness.serve.server import Endpoint

LOAD_TIMEOUT_S = 300.0


def exchange_adapter(endpoint: Endpoint, name: str, folder: Path) -> None:
    """Serves the adapter in `folder` by `name`, in the place of whatever had that name. Raises ServerFault.

    vLLM's prefix cache knows adapters by name and folder: weights that changed in one folder must not come this way.
    Its own exchange in place (`load_inplace`) reads the adapter again for every step of the engine.
    """
    import httpx

    with httpx.Client(
        base_url=endpoint.url, headers=endpoint.headers, timeout=LOAD_TIMEOUT_S, trust_env=False
    ) as client:
        try:
            client.post("/v1/unload_lora_adapter", json={"lora_name": name})  # 404 where there was none
            answer = client.post("/v1/load_lora_adapter", json={"lora_name": name, "lora_path": str(folder)})
        except httpx.TransportError as error:
            raise ServerFault(f"the vLLM server does not answer ({type(error).__name__}: {error})") from None
    if answer.status_code != httpx.codes.OK:
        raise ServerFault(f"the vLLM server does not load the adapter in {folder}: {answer.text[:300]}")
