"""What the A/A check says about a comparison: answers that differ no more than one model's own two passes are noise."""

from collections.abc import Mapping, Sequence

from harness.records import MetricComparison


def noise_notes(metrics: Sequence[MetricComparison], flip_shares: Mapping[str, float]) -> list[str]:
    """A note for each right/wrong metric whose share of differing answers is at most the A/A check's, by task.

    `flip_shares` are an evaluation's `aa_flip_share`. Notes decide nothing: a verdict rests on the paired test.
    """
    notes = []
    for metric in metrics:
        share = flip_shares.get(metric.task)
        if share is None or metric.only_baseline_right is None or metric.only_candidate_right is None:
            continue
        differing = metric.only_baseline_right + metric.only_candidate_right
        if 0 < differing <= share * metric.n:
            notes.append(
                f"{metric.key}: {differing} of {metric.n} answers differ ({differing / metric.n:.1%}), "
                f"no more than when the same model is asked twice ({share:.1%}): noise"
            )
    return notes
