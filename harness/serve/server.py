"""The vLLM server process: started from the prompt contract, on loopback, with a key; always stopped at the end."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from harness.config.experiment import ServeConfig
from harness.core.console import say
from harness.core.errors import EnvironmentFault, ServerFault
from harness.core.installed import version_of
from harness.core.processes import dies_with_parent, reserved_port
from harness.prompt.contract import Contract
from harness.prompt.saved import TEMPLATE_FILE
from harness.serve.cpu_plugin import ONE_IMPORT

BASE = "base"
LOG_LINES = 25
ADAPTERS_CHANGE = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
# LoRA on the CPU allocates and frees megabytes per layer; without these settings the kernel takes most of the time.
KEEP_MEMORY = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=1073741824:glibc.malloc.trim_threshold=4294967296"


@dataclass(frozen=True)
class Endpoint:
    """A running server; `models` are the names of its models. The key is never written down."""

    url: str
    key: str
    models: tuple[str, ...]

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}


@dataclass(frozen=True)
class ServerPlan:
    """What to serve: the base model's folder, the folder with the prompt's files (`write_prompt`), and the adapters'
    folders by model name. With `adapters_change`, adapters can be replaced while the server runs."""

    base: Path
    prompt: Path
    template_kwargs: Mapping[str, str | bool | int]
    adapters: Mapping[str, Path]
    max_lora_rank: int
    dtype: str
    adapters_change: bool = False


def write_prompt(contract: Contract, folder: Path) -> Path:
    """Writes what a server needs of the contract to `folder`, and returns it: the template, and a generation
    configuration with the stop ids and sampling defaults."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TEMPLATE_FILE).write_text(contract.template)
    (folder / "generation_config.json").write_text(
        json.dumps({"eos_token_id": contract.stop_ids, **contract.sampling}) + "\n"
    )
    contract.save(folder)
    return folder


@contextmanager
def vllm_server(plan: ServerPlan, config: ServeConfig, log: Path) -> Iterator[Endpoint]:
    """Starts the server, waits until it answers, and stops it and its children on the way out.

    Raises ServerFault with the last lines of its log when it does not start.
    """
    with launched(plan, config, log) as server:
        yield server.ready()


@dataclass(frozen=True)
class Launched:
    """A server that may still be starting; `ready` waits for it."""

    endpoint: Endpoint
    process: "subprocess.Popen[bytes]"
    config: ServeConfig
    started: float

    def ready(self) -> Endpoint:
        """Waits until the server answers. Raises ServerFault when it ends, or does not start in time."""
        import httpx

        while (seconds := time.monotonic() - self.started) < self.config.start_timeout_s:
            if self.process.poll() is not None:
                raise ServerFault(f"the vLLM server ended with code {self.process.returncode} during startup")
            with suppress(httpx.TransportError):
                if httpx.get(f"{self.endpoint.url}/health", timeout=5, trust_env=False).status_code == 200:
                    say(f"  server ready after {seconds:.0f} s")
                    return self.endpoint
            time.sleep(0.25)
        raise ServerFault(
            f"the vLLM server did not answer within {self.config.start_timeout_s:.0f} s. Raise serve.start_timeout_s."
        )


@contextmanager
def launched(plan: ServerPlan, config: ServeConfig, log: Path) -> Iterator[Launched]:
    """Starts the server without waiting for it, so that other work can run meanwhile; stops it at the end.

    A ServerFault raised in the block gets the last lines of the server's log.
    """
    port = usable_port(config)
    endpoint = Endpoint(f"http://{config.host}:{port}", secrets.token_urlsafe(32), (BASE, *plan.adapters))
    log.parent.mkdir(parents=True, exist_ok=True)
    with reserved_port(config.host, port), log.open("w") as output:
        process = subprocess.Popen(  # noqa: S603
            server_command(plan, config, port),
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=server_environment(config, endpoint.key) | (ADAPTERS_CHANGE if plan.adapters_change else {}),
            start_new_session=True,
            preexec_fn=dies_with_parent(),
        )
        try:
            yield Launched(endpoint, process, config, time.monotonic())
        except ServerFault as fault:
            raise ServerFault(f"{fault}\n{_tail(log)}") from None
        finally:
            _stop(process)


def server_command(plan: ServerPlan, config: ServeConfig, port: int) -> list[str]:
    """The exact vLLM command. The template, its arguments, stop ids and sampling defaults come from the contract, not
    from the checkpoint's generation configuration.

    The CPU build's default block size for the prefix cache, 128 tokens, is too coarse for short questions.
    """
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(plan.base), "--served-model-name", BASE, "--dtype", plan.dtype]
    command += ["--host", config.host, "--port", str(port)]
    command += ["--chat-template", str(plan.prompt / TEMPLATE_FILE), "--chat-template-content-format", "string"]
    if plan.template_kwargs:
        command += ["--default-chat-template-kwargs", json.dumps(dict(plan.template_kwargs))]
    command += ["--generation-config", str(plan.prompt), "--max-model-len", str(config.max_model_len)]
    command += ["--max-num-seqs", str(config.max_num_seqs)]
    command += ["--enforce-eager"] if config.enforce_eager else []
    command += ["--disable-uvicorn-access-log"]
    if plan.adapters:
        command += ["--enable-lora", "--max-lora-rank", str(plan.max_lora_rank), "--max-loras", str(len(plan.adapters))]
        command += ["--lora-modules", *(f"{name}={path}" for name, path in plan.adapters.items())]
    if device_of(config) == "cpu":
        command += ["--block-size", "32"]
    else:
        command += ["--gpu-memory-utilization", str(config.gpu_memory_utilization)]
    return command


def device_of(config: ServeConfig) -> str:
    """'cuda' or 'cpu': as configured; with `auto`, 'cpu' if `vllm-cpu` is installed, else 'cuda'."""
    if config.device != "auto":
        return config.device
    return "cpu" if version_of("vllm-cpu") else "cuda"


def server_environment(config: ServeConfig, key: str) -> dict[str, str]:
    """The server's environment: the key (never on the command line), no telemetry, all cores on the CPU."""
    environment = {
        **os.environ,
        "VLLM_API_KEY": key,
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if device_of(config) == "cpu":
        cores = sorted(os.sched_getaffinity(0))
        environment["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, cores))
        environment["VLLM_CPU_KVCACHE_SPACE"] = str(config.kv_cache_gib)
        environment[ONE_IMPORT] = "1"
        environment.setdefault("GLIBC_TUNABLES", KEEP_MEMORY)
        # Intel's OpenMP runtime, if its wheel is installed, is faster than the one in torch
        if libraries := sorted(Path(sys.prefix).glob("lib/libiomp5.so")):
            environment["LD_PRELOAD"] = ":".join(filter(None, [str(libraries[0]), os.environ.get("LD_PRELOAD")]))
    return environment


def usable_port(config: ServeConfig) -> int:
    """The configured port if it is free; for port 0, any free one. Raises EnvironmentFault."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.host, config.port))
        except OSError as error:
            raise EnvironmentFault(
                f"port {config.port} on {config.host} cannot be used ({error.strerror}). "
                "Use another one (serve.port=…), or any free one (serve.port=0)."
            ) from None
        port: int = probe.getsockname()[1]
        return port


def _tail(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return "\n".join([f"Last lines of {log}:", *(f"  {line[:300]}" for line in lines[-LOG_LINES:])])


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends the whole process group, with SIGTERM, then SIGKILL, whatever signals arrive meanwhile."""
    with _undisturbed():
        for signal_number, patience_s in ((signal.SIGTERM, 15), (signal.SIGKILL, 10)):
            try:
                os.killpg(process.pid, signal_number)
            except ProcessLookupError:
                break
            if _ended(process, patience_s):
                break
        process.wait(timeout=10)


def _ended(process: subprocess.Popen[bytes], patience_s: float) -> bool:
    """Whether all processes of the group end in time; vLLM's workers may outlive the leader a little."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            try:
                os.killpg(process.pid, 0)
            except ProcessLookupError:
                return True
        time.sleep(0.05)
    return False


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ignores Ctrl-C and SIGTERM inside the block (in the main thread; others cannot set signals)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
