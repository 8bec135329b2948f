"""Functions that escalation.yaml names."""

from harness.evaluate.domain import grader, items, user_prompt

__all__ = ["items", "process_results", "user_prompt"]

process_results = grader("escalation")
