"""A vLLM plugin (entry point group `vllm.general_plugins`) for the CPU build; on other devices it does nothing."""


def register() -> None:
    """Puts the harness's parts in place; vLLM calls this in each of its processes, and more than once."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    from harness.serve.vllm_cpu import lora, scoring, start

    start.install()
    lora.install()
    scoring.install()
