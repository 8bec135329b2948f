"""The names that `serve` and its vLLM plugin for the CPU build (`vllm_cpu/`) share. Neither imports the other.

Without the folder `vllm_cpu/`, servers are started and used in the same way: vLLM without the plugin ignores both
names.
"""

PLUGIN = "harness.serve.vllm_cpu.plugin:register"  # the entry point; naming it puts its code into answers' fingerprints
SCORE_FROM = "score_from"  # extra argument of a request with `prompt_logprobs`: the first token that is scored
ONE_IMPORT = "HARNESS_ONE_IMPORT"  # "1" in a server's environment: one process imports vLLM and forks the engine
