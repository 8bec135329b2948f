"""The configuration of a sweep: where its members run. It is not part of a member's own configuration."""

from typing import Annotated

from pydantic import Field

from harness.config.group import Group


class LaunchConfig(Group):
    """How the members of a sweep are trained. No result depends on it."""

    devices: Annotated[list[int | str], Field(max_length=1024)] = []
    """GPUs that train one member each, as CUDA_VISIBLE_DEVICES names them; empty: one member after another."""

    retries: Annotated[int, Field(ge=0, le=10)] = 0
    """How often a member is tried again after a fault of its machine (exit code 3, or a process that was killed)."""
