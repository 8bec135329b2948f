"""The built-in registry: a folder with aliases, models and their history. One writer at a time; readers never wait.

history.jsonl          the source of truth: where every alias points, and every change that led there
aliases/<alias>.json   a copy of the alias's last entry; it reveals a history whose end was cut off
models/<model>/        a read-only copy of checkpoint, data and evidence, so that production outlives the run's folder
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from harness.checkpoint import history as log
from harness.checkpoint.alias import MODELS, model_folder, nothing_promoted, require_alias
from harness.checkpoint.history import HISTORY, HistoryEntry
from harness.config.experiment import validate
from harness.config.gate import GateConfig
from harness.core.console import say
from harness.core.errors import (
    DataError,
    EnvironmentFault,
    EvidenceFault,
    ExitCode,
    PromotionRefused,
    UsageError,
    nearest,
)
from harness.core.layout import EVIDENCE
from harness.core.store import sha256_file, write_json
from harness.lineage.verify import Link, broken_links, verify_evidence
from harness.records.base import load
from harness.registry.model_copy import checked_copy
from harness.registry.policy import at_least_as_strict
from harness.registry.protocol import AuditInfo, PromotionRequest

LOCK_TIMEOUT_S = 60
ALIASES = "aliases"


class FileRegistry:
    """The registry in `folder`; see `harness.registry.protocol.Registry` for what each method returns and raises."""

    def __init__(self, folder: Path):
        self.folder = folder

    def current(self, alias: str) -> HistoryEntry | None:
        return log.current_of(self.history(), alias)

    def history(self, alias: str | None = None) -> list[HistoryEntry]:
        entries = log.read_history(self.folder)
        return [entry for entry in entries if alias in (None, entry.alias)]

    def model_folder(self, entry: HistoryEntry) -> Path:
        return model_folder(self.folder, entry)

    def create(self, info: AuditInfo) -> HistoryEntry:
        log.valid_alias(info.alias)
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._locked_history() as entries:
            if any(entry.alias == info.alias for entry in entries):
                raise UsageError(f"{info.alias} exists already in {self.folder}; see: harness registry list")
            return self._append(entries, "init", info, "", "", {}, {})

    def promote(self, request: PromotionRequest, info: AuditInfo) -> HistoryEntry:
        log.valid_alias(info.alias)
        require_alias(self.folder, self.history(), info.alias)
        with (
            checked_copy(self.folder / MODELS, request, info) as (place_copy, evidence_sha256),
            self._locked_history() as entries,
        ):
            self._require_head(entries, request.head, info.alias)
            self._require_policy(entries, request, info.alias)
            final = place_copy()
            digests = request.digests | {"evidence": evidence_sha256}
            policy = log.demanded_of(entries, info.alias) or request.policy
            return self._append(entries, "promote", info, final.name, request.run_id, digests, policy)

    def rollback(self, info: AuditInfo, to: str | None = None) -> HistoryEntry:
        with self._locked_history() as entries:
            target = self._target(entries, info.alias, to)
            self._require_intact(target)
            policy = log.demanded_of(entries, info.alias) or {}
            return self._append(entries, "rollback", info, target.model, target.run_id, target.digests, policy)

    def set_policy(self, info: AuditInfo, policy: dict[str, Any]) -> HistoryEntry:
        require_alias(self.folder, self.history(), info.alias)
        with self._locked_history() as entries:
            return self._append(entries, "policy", info, "", "", {}, policy)

    def verify(self) -> list[Link]:
        # Alias files are written after the history, so they are read before it: otherwise a promotion in between
        # would make an alias file look newer than the history.
        pointers = {path: self._alias_entry(path) for path in sorted((self.folder / ALIASES).glob("*.json"))}
        entries, problems = log.read_lines(log.history_lines(self.folder), HISTORY)
        back = [f"{after.number} ({after.when})" for before, after in pairwise(entries) if after.when < before.when]
        noted = f"; the clock was set back before entry {', '.join(back)}" if back else ""
        links = [Link("history", f"entries linked by their hashes: {len(entries)}{noted}", "; ".join(problems))]
        links += [self._alias_link(path, pointer, entries) for path, pointer in pointers.items()]
        models = {entry.model: entry for entry in entries if entry.model}
        return links + [self._model_link(entry) for entry in models.values()]

    def _model_link(self, entry: HistoryEntry) -> Link:
        problems = "; ".join(self._model_problems(entry))
        return Link(f"model {entry.model}", f"entry {entry.number}; every file and link is intact", problems)

    def _model_problems(self, entry: HistoryEntry) -> list[str]:
        try:
            folder = self.model_folder(entry)
        except EvidenceFault as fault:
            return [str(fault)]
        if not (folder / EVIDENCE).is_file():
            return [f"{folder} is missing"]
        if sha256_file(folder / EVIDENCE) != entry.digests.get("evidence"):
            return [f"{folder / EVIDENCE} changed after the promotion"]
        return broken_links(verify_evidence(folder))

    def _require_intact(self, entry: HistoryEntry) -> None:
        if problems := self._model_problems(entry):
            lines = [f"  - {problem}" for problem in problems]
            raise EvidenceFault("\n".join([f"cannot roll back to {entry.model}; its copy is damaged:", *lines]))

    def _alias_entry(self, path: Path) -> HistoryEntry | DataError:
        try:
            return load(HistoryEntry, path)
        except DataError as error:
            return error

    def _alias_link(self, path: Path, recorded: HistoryEntry | DataError, entries: list[HistoryEntry]) -> Link:
        """An alias file may lag behind the history (after a crash between the two writes), never be ahead of it."""
        name = f"alias {path.stem}"
        if isinstance(recorded, DataError):
            return Link(name, broken=str(recorded))
        known = any(entry.hash == recorded.hash for entry in entries)
        missing = f"{path} holds entry {recorded.number}, which the history lacks: the history was cut off"
        return Link(name, f"entry {recorded.number} is in the history", "" if known else missing)

    @contextmanager
    def _locked_history(self) -> Iterator[list[HistoryEntry]]:
        """The history, locked against other writers. Raises EnvironmentFault when another process keeps the lock."""
        from filelock import FileLock, Timeout

        try:
            with FileLock(self.folder / ".lock").acquire(timeout=LOCK_TIMEOUT_S):
                yield self.history()
        except Timeout:
            raise EnvironmentFault(
                f"another process has locked {self.folder} for more than {LOCK_TIMEOUT_S} s; try again when it is done"
            ) from None

    def _require_head(self, entries: list[HistoryEntry], head: str, alias: str) -> None:
        """Compare and swap: raises PromotionRefused when the alias moved since the candidate was checked."""
        current = log.current_of(entries, alias)
        if current is not None and current.hash != head:
            raise PromotionRefused(
                [
                    f"{alias} moved while this candidate was checked: entry {current.number} by {current.who} moved it "
                    f"to {current.model}. Run: harness ci RUN --against {alias}, then promote again."
                ],
                ExitCode.INVALID,
            )

    def _require_policy(self, entries: list[HistoryEntry], request: PromotionRequest, alias: str) -> None:
        """Raises PromotionRefused when the alias's policy became stricter while the candidate was checked."""
        required = log.demanded_of(entries, alias)
        if not required:
            return
        policies = (validate(GateConfig, values) for values in (request.policy, required))
        if reasons := at_least_as_strict(*policies):
            raise PromotionRefused(reasons, ExitCode.INVALID)

    def _target(self, entries: list[HistoryEntry], alias: str, to: str | None) -> HistoryEntry:
        promoted = [e for e in entries if e.alias == alias and e.action == "promote"]
        if not promoted:
            known = {entry.alias for entry in entries}
            suggestion = f"Nothing has been promoted as {alias}. {nearest(alias, known)}"
            raise UsageError(suggestion if known - {alias} else nothing_promoted(alias, self.folder))
        target = log.before_current(entries, alias) if to is None else self._named(promoted, alias, to)
        current = log.current_of(entries, alias)
        if target is None:
            raise UsageError(f"{alias} has only ever pointed to one model: there is nothing to roll back to")
        if current is not None and target.model == current.model:
            raise UsageError(f"{alias} already points to {target.model}")
        return target

    def _named(self, promoted: list[HistoryEntry], alias: str, to: str) -> HistoryEntry:
        found = [e for e in promoted if to in (e.model, e.run_id, str(e.number))]
        if not found:
            names = {entry.model for entry in promoted}
            raise UsageError(
                f"--to {to}: {alias} never pointed to a model, run or entry of this name. {nearest(to, names)}"
            )
        return found[-1]

    def _append(
        self,
        entries: list[HistoryEntry],
        action: Literal["init", "promote", "rollback", "policy"],
        info: AuditInfo,
        model: str,
        run_id: str,
        digests: dict[str, str],
        policy: dict[str, Any],
    ) -> HistoryEntry:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        if entries and now < entries[-1].when:
            say(f"warning: the clock says {now}, before the last entry ({entries[-1].when}); set it right")
        entry = HistoryEntry(
            number=len(entries) + 1,
            action=action,
            alias=info.alias,
            model=model,
            run_id=run_id,
            when=now,
            who=info.who,
            why=info.why,
            digests=digests,
            policy=policy,
            previous=entries[-1].hash if entries else "",
        ).sealed()
        log.write_history(self.folder, [*entries, entry])
        (self.folder / ALIASES).mkdir(exist_ok=True)
        write_json(self.folder / ALIASES / f"{info.alias}.json", entry.model_dump())
        return entry
