"""Where the shipped files are: beside the package in a checkout, inside it in an installed wheel."""

from pathlib import Path

PACKAGE = Path(__file__).parent.parent
SHIPPED = PACKAGE / "_shipped" if (PACKAGE / "_shipped").is_dir() else PACKAGE.parent
CONF = SHIPPED / "conf"
TASKS = SHIPPED / "tasks"
TASK_GATE = "gate.yaml"  # what a task's folder says to the gate; nothing else depends on it


def task_roots() -> list[Path]:
    """Folders of domain tasks, the shipped one first (later ones win): a user's own `tasks/` may replace them."""
    own = Path.cwd() / "tasks"
    return [TASKS, *([own] if own.is_dir() and own.resolve() != TASKS.resolve() else [])]
