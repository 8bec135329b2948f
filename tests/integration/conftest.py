"""The promotion story is played once; every test reads what became of it."""

from contextlib import ExitStack
from pathlib import Path

import pytest
from story import KeptServers, Story, play, write_story


@pytest.fixture(scope="session")
def story(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """The whole story, told; its servers are stopped."""
    project = write_story(tmp_path_factory.mktemp("story"), tiny_base)
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.chdir(project)
        patch.delenv("HARNESS_REGISTRY", raising=False)
        patch.setattr("harness.evaluate.several.vllm_server", KeptServers(stack).serve)
        return play(Story(project))
