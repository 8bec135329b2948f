"""Functions that disclaimer.yaml names."""

from harness.evaluate.domain import behavior_metrics, items, user_prompt

__all__ = ["items", "process_results", "user_prompt"]


def process_results(doc, results):
    return behavior_metrics("disclaimer", doc, results[0])
