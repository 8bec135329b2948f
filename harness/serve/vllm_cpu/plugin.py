"""The vLLM plugin for the CPU build (entry point group `vllm.general_plugins`); on other devices it does nothing."""


def register() -> None:
    """Installs the changes to vLLM. vLLM calls this in each of its processes, and more than once."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    from harness.serve.vllm_cpu import lora, scoring, start

    start.install()
    lora.install()
    scoring.install()
