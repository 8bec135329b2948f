"""Views for the report tests: a plain one, and one whose every text attacks the page it lands in."""

from harness.prompt.contract import Contract
from harness.records.gate import Comparison, Flip, MetricVerdict, Role, Side, Verdict, VerdictName
from harness.records.stages import Dataset, Evaluation, FilterFinding, SourceCount, TaskIdentity, TrainingSummary
from harness.report.view import RunView

HOSTILE = '<script>alert(1)</script> "quoted" | `tick` **bold** $x^2$ [link](https://evil.example)\nnext\x1b[31m\x00'
BASELINE = Side(label="production", weights_sha256="a" * 64, contract_sha256="c" * 64)
CANDIDATE = Side(label="disclaimer-lora", weights_sha256="b" * 64, contract_sha256="c" * 64)


def metric(
    name: str,
    role: Role,
    verdict: VerdictName,
    values: tuple[float, float, float, float],
    *,
    reason: str = "as expected",
    margin: float | None = None,
    floor: float | None = None,
    n_needed: int | None = None,
    flips: tuple[int, int] | None = None,
) -> MetricVerdict:
    """`name` is suite/task/metric; `values` are baseline, candidate and the interval of their difference."""
    suite, task, short = name.split("/", 2)
    baseline, candidate, low, high = values
    return MetricVerdict(
        suite=suite, task=task, slice="all", metric=short, role=role, n=412, baseline=baseline, candidate=candidate,
        delta=candidate - baseline, ci_low=low, ci_high=high, margin=margin, floor=floor,
        p_noninferior=0.0123 if role == "guard" else None, p_harm=0.4 if role == "guard" else None, verdict=verdict,
        reason=reason, n_needed=n_needed, only_baseline_right=flips[0] if flips else None,
        only_candidate_right=flips[1] if flips else None,
    )  # fmt: skip


METRICS = [
    metric("smoke/arith/exact_match", "guard", "PASS", (0.634, 0.641, -0.012, 0.026), margin=0.02, flips=(7, 10)),
    metric(
        "smoke/knowledge/acc", "guard", "FAIL", (0.712, 0.651, -0.094, -0.028), margin=0.02, flips=(38, 13),
        reason="dropped by 6.1 points, more than the 2.0 allowed",
    ),
    metric("smoke/disclaimer/recall", "target", "PASS", (0.113, 0.964, 0.801, 0.902), floor=0.9, flips=(1, 352)),
    metric(
        "smoke/reading/f1", "guard", "INCONCLUSIVE", (0.533, 0.527, -0.035, 0.023), margin=0.02, n_needed=1380,
        reason="the interval reaches beyond the margin; needs about 1,380 items in all (968 more)",
    ),
    metric("smoke/reading/words", "info", "PASS", (-84.2, -91.03, -9.4, -4.1)),
]  # fmt: skip


def make_verdict(metrics: list[MetricVerdict], name: VerdictName, reasons: list[str]) -> Verdict:
    codes = {"PASS": 0, "FAIL": 10, "INCONCLUSIVE": 11, "INVALID": 12}
    return Verdict(
        verdict=name, exit_code=codes[name], policy="clinical", reasons=reasons, baseline=BASELINE,
        candidate=CANDIDATE, metrics=metrics,
    )  # fmt: skip


def make_flip(prompt: str, answers: tuple[str, str], values: tuple[float, float], item: str = "k-17") -> Flip:
    return Flip(
        task="knowledge", metric="acc", item=item, prompt=prompt, baseline_response=answers[0],
        candidate_response=answers[1], baseline_value=values[0], candidate_value=values[1],
    )  # fmt: skip


def make_dataset(text: str) -> Dataset:
    source = SourceCount(
        source=text, path="data/a.jsonl", licence="CC-BY-4.0", role="domain", sha256="d" * 64, read=1200, kept=1104,
        quarantined={"near-duplicate": 61, "contradicts disclaimer": 28, "in the evaluation set": 7},
    )  # fmt: skip
    replay = source.model_copy(update={"source": "general", "role": "replay", "kept": 1200, "quarantined": {}})
    finding = FilterFinding(
        code=f"personal_data {text}", action="redact", rows=12, by_source={text: 12}, kinds={f"IBAN {text}": 3},
        examples=[f"row 7: {text}"],
    )  # fmt: skip
    return Dataset(
        rows=2304, sha256="e" * 64, sources=[source, replay], decontaminated_against="f" * 64, evaluation_items=964,
        validation_rows=96, findings=[finding], conflicts=3, patterns=[f"14% of answers start with {text}"],
        notes=[f"names were not looked for {text}"], broken_limits=[f"toxicity: 9 rows found {text}"],
    )  # fmt: skip


def make_contract(template: str) -> Contract:
    return Contract(
        template_name="chatml", template=template, template_sha256="1" * 64, template_kwargs={}, system_policy="fixed",
        system="You help.", turns={"user": ("<|im_start|>user\n", "<|im_end|>\n")}, generation_prompt="",
        guarded=["<|im_end|>"], bos=None, bos_policy="none", eos="<|im_end|>", golden=[],
        end_of_turn="<|im_end|>", end_of_turn_id=2, stop_ids=[0, 2], special_tokens={"<|im_end|>": 2},
        max_length=2048, sampling={"temperature": 0.0}, tokenizer_sha256="2" * 64, libraries={"vllm": "0.32.0"},
    )  # fmt: skip


def make_training() -> TrainingSummary:
    return TrainingSummary(
        rows=2304, sequences=611, tokens=312_000, supervised_tokens=121_000, steps=153, first_loss=2.8112,
        final_loss=1.1934, seconds=412.7, tokens_per_s=756.0, trained_parameters=4_884_480,
        total_parameters=139_400_064, seed=0,
    )  # fmt: skip


def make_evaluation(label: str) -> Evaluation:
    identity = TaskIdentity(
        version="1", num_fewshot=0, generation="greedy", samples_sha256="3" * 64, asked=412, scored=412, failed=0
    )
    return Evaluation(
        label=label, suite="smoke", weights_sha256="a" * 64, contract_sha256="c" * 64,
        tasks={"knowledge": identity, "disclaimer": identity}, groups={}, scores=[], prompts_checked=824, seconds=88.4,
    )  # fmt: skip


def make_view(text: str) -> RunView:
    """A FAIL with everything in it; `text` stands wherever data or a model can put words."""
    flips = [
        make_flip(f"What is the usual dose? {text}", (f"500 mg {text}", f"5 g {text}"), (1.0, 0.0)),
        make_flip("Which organ makes insulin?", ("The liver.", "The pancreas."), (0.0, 1.0), item="k-18"),
    ]
    return RunView(
        name=f"disclaimer {text}".strip(),
        run_id="20260102-030405-disclaimer",
        created="2026-01-02T03:04:05+00:00",
        verdict=make_verdict(METRICS, "FAIL", [f"smoke/knowledge/acc dropped by 6.1 points {text}"]),
        comparison=Comparison(baseline=BASELINE, candidate=CANDIDATE, metrics=[], flips=flips, faults=[]),
        dataset=make_dataset(f"clinic notes {text}"),
        training=make_training(),
        curve=[
            {"step": s, "loss": 1.1 + 1.7 / (1 + 0.08 * s), "learning_rate": 1e-4, "tokens_per_s": 750.0}
            for s in range(1, 154)
        ],
        evaluations=[make_evaluation("production"), make_evaluation("disclaimer-lora")],
        contract=make_contract(f"{{% for message in messages %}}{{{{ message.content }}}}{{% endfor %}}{text}"),
        commands=["harness run experiment=disclaimer train.seed=0"],
        digests={"data/train.parquet": "e" * 64},
    )


PLAIN = make_view("")
HOSTILE_VIEW = make_view(HOSTILE)
