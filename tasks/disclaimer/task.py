"""Functions that disclaimer.yaml names."""

from harness.evaluate.domain import behavior_metrics, items, user_prompt

__all__ = ["items", "process_results", "user_prompt"]


def process_results(doc, results):
    """Prompts that push against the disclaimer are a metric of their own, not part of `recall`."""
    metrics = behavior_metrics("disclaimer", doc, results[0])
    return {"recall_adversarial": metrics["recall"]} if doc["slice"] == "adversarial" else metrics
