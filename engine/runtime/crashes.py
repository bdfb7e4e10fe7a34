"""Work that kills its worker: how often, and which of its rows do it.

A worker process dies for many reasons: a node is taken away, memory runs out, someone kills it;
then trying again is right. But a row on which a tokenizer or a kernel crashes kills every worker
that tries, and Ray would replace them for ever. So each piece of work leaves a *trail* beside its
part while it is being done, and whoever tries it next reads there what happened:

    tries 1, 2      as usual
    then            every row is tried by itself, its number written down before; a row at which two
                    workers died is *left out* (embedded as zeros, scored NaN), and the job goes on
    then            as usual, without those; two more deaths end the job with a sentence

The same bytes come out as long as no row is left out, however many workers died.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from engine import storage
from engine.artifacts.files import digest, read_json, write_json
from engine.errors import EngineError

__all__ = ["CRASHED", "Trail", "crashed_loading"]

CRASHED = "it crashes the worker process"  # why a row has no vector or no score

PLAIN_TRIES = 2  # a worker may well die by chance once, hardly twice at the same piece
DEATHS_OF_A_ROW = 2  # alone at the same row
MAX_TRIES = 4  # of work whose rows cannot be tried one by one
MAX_SHARE = 0.1  # of the rows of a piece; when more crash, it is not the rows
MAX_ROWS = 32  # of one job's pool, likewise


@dataclass
class Trail:
    """What became of the tries to do one piece of work.

    Attributes:
        path: of the file, beside the part.
        root: of all pieces of this pool, for the count of rows that are left out.
        name: of the work, for people.
        job: which job tries; the deaths of another one, which may have been killed, say nothing.
        num_rows: rows that can be tried one by one; 0 when they cannot.
        tries: of this job, this one counted.
        tried: rows 0..tried-1 have been tried alone.
        deaths: of workers at row `tried`.
        crashing: rows that are left out, ascending.
        retries: tries since all rows have been tried.
    """

    path: Path
    root: Path
    name: str
    job: str
    num_rows: int
    tries: int = 0
    tried: int = 0
    deaths: int = 0
    crashing: list[int] = field(default_factory=list)
    retries: int = 0

    @classmethod
    def start(cls, root: Path, name: str, job: str, num_rows: int) -> Trail:
        """Note that work on the part `root / name` begins; EngineError after too many deaths."""
        part = root / name
        trail = cls(part.with_name(f".{part.name}.tries"), root, name, job, num_rows)
        path = trail.path
        if storage.exists(path):
            found = read_json(path)
            trail.crashing = found["crashing"]
            if found["job"] == job:
                trail.tries, trail.tried = found["tries"], found["tried"]
                trail.deaths, trail.retries = found["deaths"], found["retries"]
        trail._count()
        return trail

    def _count(self) -> None:
        self.tries += 1
        if self.tries > PLAIN_TRIES and self.num_rows:
            if self.tried == self.num_rows:
                self.retries += 1
                if self.retries > PLAIN_TRIES:
                    raise EngineError(self._sentence(self.tries - 1))
        elif self.tries > MAX_TRIES:
            raise EngineError(self._sentence(MAX_TRIES))
        self._write()

    def suspects(self) -> Iterator[int]:
        """Rows to try by themselves now; each is written down before it is given out."""
        if self.tries <= PLAIN_TRIES:
            return
        if self.deaths >= DEATHS_OF_A_ROW:
            self._leave_out()
        while self.tried < self.num_rows:
            self.deaths += 1
            self._write()
            yield self.tried
            self.tried, self.deaths = self.tried + 1, 0
        self._write()

    def _leave_out(self) -> None:
        self.crashing = sorted({*self.crashing, self.tried})
        self.tried, self.deaths = self.tried + 1, 0
        marks = f".left-out-{self.job}-"
        write_json(self.root / f"{marks}{digest(self.name, self.crashing)}.json", self.crashing)
        in_all = sum(path.name.startswith(marks) for path in storage.files_in(self.root))
        if len(self.crashing) > max(1, MAX_SHARE * self.num_rows) or in_all > MAX_ROWS:
            raise EngineError(
                f"{len(self.crashing)} of the first {self.tried} rows of {self.name} crash the "
                f"worker process, each by itself, and {in_all} rows so far: the model does not run "
                "on this machine, or has too little memory"
            )

    def end(self) -> None:
        """The work is done, or failed with an error of its own: nothing died."""
        storage.remove(self.path)

    def _sentence(self, deaths: int) -> str:
        rows = ", and at none of its rows alone" if self.num_rows else ""
        return (
            f"a worker process died {deaths} times at the same piece of work ({self.name}){rows}; "
            "what was finished is kept, and the same command goes on from there. Out of memory is "
            "the usual reason: fewer actors or a smaller batch_size need less"
        )

    def _write(self) -> None:
        values = asdict(self)
        write_json(self.path, {k: v for k, v in values.items() if k not in ("path", "root")})


def crashed_loading(root: Path, worker: str, job: str, actor: str) -> EngineError | None:
    """Count one more attempt of an actor to load its model; an error when it died too often.

    Call `loaded` afterwards.
    """
    path = _loading(root, worker, job, actor)
    tries = read_json(path) if storage.exists(path) else 0
    if tries >= MAX_TRIES:
        return EngineError(
            f"a worker process died {tries} times while it was loading its model ({worker}); "
            "out of memory is the usual reason: fewer actors need less"
        )
    write_json(path, tries + 1)
    return None


def loaded(root: Path, worker: str, job: str, actor: str) -> None:
    """The actor has its model."""
    storage.remove(_loading(root, worker, job, actor))


def _loading(root: Path, worker: str, job: str, actor: str) -> Path:
    return root / f".loading-{worker}-{job}-{actor}"
