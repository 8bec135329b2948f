"""The folders of shipped files: next to the package in a checkout, inside it in an installed wheel."""

from pathlib import Path

PACKAGE = Path(__file__).parent.parent
SHIPPED = PACKAGE / "_shipped" if (PACKAGE / "_shipped").is_dir() else PACKAGE.parent
CONF = SHIPPED / "conf"
TASKS = SHIPPED / "tasks"
TASK_GATE = "gate.yaml"  # a task's gate rules; nothing but the gate depends on the file


def task_roots() -> list[Path]:
    """Folders of domain tasks, the shipped one first. Later ones win: a user's `tasks/` can replace shipped tasks."""
    own = Path.cwd() / "tasks"
    return [TASKS, *([own] if own.is_dir() and own.resolve() != TASKS.resolve() else [])]
