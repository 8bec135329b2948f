"""`harness train --dry-run`: what a training would be, from its real rows, before anything is trained."""

from harness.base_model import local_model
from harness.data.tables import read_rows
from harness.errors import LimitsBroken
from harness.pipeline import Run, audit_stage, check
from harness.train.plan import TrainingPlan, plan_training


def dry_run(run: Run) -> TrainingPlan:
    """Audits the data (which a training after it reuses) and plans the training on them.

    Raises LimitsBroken where training would.
    """
    check(run.config)
    dataset = audit_stage(run)
    if dataset.broken_limits:
        raise LimitsBroken(dataset.broken_limits)
    return plan_training(run.config, local_model(run.config.model), read_rows(run.folder / "data"))
