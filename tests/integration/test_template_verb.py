"""`harness template` and `harness serve`, as a user meets them: against the session's real server."""

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
from tiny import Served

from harness.cli import main
from harness.data.tables import write_parquet

pytestmark = pytest.mark.integration

STOCK = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are helpful.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
Harness = Callable[..., tuple[int, str]]


@pytest.fixture
def harness(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Harness:
    """Calls a verb with the server's key in the environment; returns exit code and all that was printed."""
    monkeypatch.setenv("VLLM_API_KEY", served.endpoint.key)
    monkeypatch.chdir(tmp_path)
    model = ["model=pretrained", f"model.path={served.base}", "tracker=none", "serve.kv_cache_gib=1"]

    def call(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        try:
            code = main([*arguments, *model])
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return call


def verify(harness: Harness, served: Served, folder: Path, model: str = "candidate") -> tuple[int, str]:
    return harness("template", "verify", str(folder), "--server", served.endpoint.url, "--model", model)


def stock_model(served: Served, folder: Path) -> Path:
    """The base model as somebody else publishes it: with a template that has a default system message."""
    shutil.copytree(served.base, folder)
    (folder / "chat_template.jinja").write_text(STOCK)
    return folder


class TestVerify:
    def test_a_checkpoint_on_the_server_it_was_trained_for(self, harness: Harness, served: Served) -> None:
        code, printed = verify(harness, served, served.adapter)
        assert code == 0, printed
        for step in ("static: ok", "checkpoint: ok", "live: ok"):
            assert step in printed
        assert "prompts compared" in printed
        assert "error" not in printed

    def test_rows_of_the_run_are_replayed(self, harness: Harness, served: Served, tmp_path: Path) -> None:
        run = tmp_path / "run"
        shutil.copytree(served.adapter, run / "checkpoint")
        (run / "data").mkdir()
        write_parquet(tiny.rows(24), run / "data" / "train.parquet")
        code, printed = verify(harness, served, run / "checkpoint")
        assert code == 0, printed
        assert "16 training rows among them" in printed

    def test_a_server_that_applies_no_adapter(self, harness: Harness, served: Served) -> None:
        code, printed = verify(harness, served, served.adapter, "base")
        assert code == 12
        assert "the prompts are equal, but the numbers are the base model's" in printed
        assert "the adapter is not applied" in printed

    def test_a_model_made_elsewhere_whose_template_the_server_does_not_use(
        self, harness: Harness, served: Served, tmp_path: Path
    ) -> None:
        code, printed = verify(harness, served, stock_model(served, tmp_path / "stock"), "base")
        assert code == 12
        assert "the template adds its own system message where none is given" in printed
        assert "First difference at token" in printed
        assert "Likely cause: the server drops the start of the prompt: the system message" in printed

    def test_places_that_disagree_need_no_server(self, harness: Harness, served: Served, tmp_path: Path) -> None:
        damaged = tmp_path / "damaged"
        shutil.copytree(served.adapter, damaged)
        config = json.loads((damaged / "tokenizer_config.json").read_text())
        (damaged / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": STOCK}))
        code, printed = harness("template", "verify", str(damaged), "--static")
        assert code == 12
        assert "error: checkpoint: tokenizer_config.json has a different template from the contract" in printed

    def test_an_edited_contract_is_refused(self, harness: Harness, served: Served, tmp_path: Path) -> None:
        edited = tmp_path / "edited"
        shutil.copytree(served.adapter, edited)
        contract = (edited / "prompt_contract.json").read_text()
        (edited / "prompt_contract.json").write_text(contract.replace("assistant\\\\n", "Assistant\\\\n"))
        code, printed = harness("template", "verify", str(edited), "--static")
        assert code == 12
        assert "the file was edited" in printed


class TestBadInput:
    def test_no_server_there(self, harness: Harness, served: Served) -> None:
        code, printed = harness("template", "verify", str(served.adapter), "--server", "http://127.0.0.1:9")
        assert code == 3
        assert "there is no server at http://127.0.0.1:9" in printed

    def test_no_address(self, harness: Harness, served: Served) -> None:
        code, printed = harness("template", "verify", str(served.adapter), "--server", "localhost")
        assert code == 2
        assert "is not a valid address" in printed

    def test_a_model_the_server_does_not_have(self, harness: Harness, served: Served) -> None:
        code, printed = verify(harness, served, served.adapter, "prod")
        assert code == 2
        assert "no model 'prod'; it offers: base, candidate" in printed

    def test_a_key_that_is_not_the_servers(
        self, harness: Harness, served: Served, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("VLLM_API_KEY", "wrong")
        code, printed = verify(harness, served, served.adapter)
        assert code == 2
        assert "needs a key" in printed
        assert "VLLM_API_KEY" in printed

    def test_a_model_without_a_template(self, harness: Harness, served: Served) -> None:
        code, printed = harness("template", "verify", str(served.base), "--static")
        assert code == 2
        assert "has no chat template" in printed

    def test_serving_wants_a_key(self, harness: Harness, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("VLLM_API_KEY")
        code, printed = harness("serve", str(served.adapter))
        assert code == 2
        assert "environment variable VLLM_API_KEY. Set it" in printed


class TestShow:
    def test_the_card_of_a_checkpoint(self, harness: Harness, served: Served) -> None:
        code, printed = harness("template", "show", str(served.adapter))
        assert code == 0
        assert served.contract.digest in printed
        assert "| Ends a turn | `'<|im_end|>'`".replace("|im_end|", "\\|im_end\\|") in printed
        assert (served.adapter / "prompt_card.md").read_text().startswith("# Prompt contract: chatml")

    def test_the_configured_template_on_the_configured_model(self, harness: Harness) -> None:
        code, printed = harness("template", "show", "template=alpaca")
        assert code == 0
        assert "### Response:" in printed
        assert "a message can imitate them" in printed


def test_the_printed_command_is_the_evaluations_own(harness: Harness, served: Served) -> None:
    code, printed = harness("serve", str(served.adapter), "--print")
    assert code == 0
    words = shlex.split(printed.strip().splitlines()[-1])
    assert served.endpoint.key not in printed
    running = next(
        command for _, command in tiny.processes().values() if f"--port {tiny.port_of(served.endpoint)}" in command
    )
    flags = {word for word in shlex.split(running) if word.startswith("--")} - {"--trust-request-chat-template"}
    assert {word for word in words if word.startswith("--")} == flags
    prompt = Path(words[words.index("--generation-config") + 1])
    assert (prompt / "chat_template.jinja").read_text() == served.contract.template
    assert json.loads((prompt / "generation_config.json").read_text())["eos_token_id"] == served.contract.stop_ids
