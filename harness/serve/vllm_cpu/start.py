"""Starts vLLM on the CPU with a single import: the API server forks the engine, which runs the model itself.

By default vLLM starts three processes one after the other, and each imports everything again (about 10 s each). The
harness requests this with an environment variable; other servers start as usual.
"""

import multiprocessing
import os
from typing import Any

from harness.serve.cpu_plugin import ONE_IMPORT


def install() -> None:
    """Changes how this process starts an engine, if the environment variable is set."""
    if os.environ.get(ONE_IMPORT) != "1":
        return
    from vllm.platforms.cpu import CpuPlatform
    from vllm.v1.engine import utils
    from vllm.v1.engine.core import EngineCoreProc

    if hasattr(CpuPlatform, "_stock_check_and_update_config"):
        return
    CpuPlatform._stock_check_and_update_config = CpuPlatform.check_and_update_config
    CpuPlatform.check_and_update_config = classmethod(in_the_engine)
    EngineCoreProc._stock_run_engine_core = EngineCoreProc.run_engine_core
    EngineCoreProc.run_engine_core = staticmethod(run_engine_core)
    utils.get_mp_context = lambda: multiprocessing.get_context("fork")


def in_the_engine(platform: Any, config: Any) -> None:
    """`check_and_update_config`: a model on one device needs no worker process beside the engine."""
    platform._stock_check_and_update_config(config)
    parallel = config.parallel_config
    if parallel.world_size == parallel.data_parallel_size == 1 and parallel.distributed_executor_backend == "mp":
        parallel.distributed_executor_backend = "uni"


def run_engine_core(*arguments: Any, **settings: Any) -> None:
    """`EngineCoreProc.run_engine_core` under the thread settings that vLLM gives its worker process."""
    import torch
    from vllm.utils.ompmultiprocessing import OMPProcessManager
    from vllm.v1.engine.core import EngineCoreProc

    manager = OMPProcessManager(settings["vllm_config"])
    with manager.configure_omp_envs(0, 0):
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or torch.get_num_threads()))
        EngineCoreProc._stock_run_engine_core(*arguments, **settings)
