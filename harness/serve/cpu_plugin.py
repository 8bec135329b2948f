"""What `serve` and its vLLM plugin for the CPU build (`vllm_cpu/`) agree on. Neither imports the other.

Without the folder `vllm_cpu/`, servers are started and asked in the same way: a vLLM without the plugin ignores both
names.
"""

PLUGIN = "harness.serve.vllm_cpu.plugin:register"  # the entry point, named so that answers' fingerprints hold its code
SCORE_FROM = "score_from"  # extra argument of a request with `prompt_logprobs`: the first token that is scored
ONE_IMPORT = "HARNESS_ONE_IMPORT"  # "1" in a server's environment: one process imports vLLM, the engine is its fork
