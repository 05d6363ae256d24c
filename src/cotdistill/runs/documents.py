"""The documents of a run's folder as types: the code that writes one and the code that reads it share them.

Each JSON document has the number of its layout (`schema_version`) and a seal, a digest of its own content.
One of another layout, one that was changed, and one whose fields are of another type are refused in one line.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    TypeAdapter,
    ValidationError,
)

from cotdistill.common.errors import UserError
from cotdistill.common.files import read_jsonl, read_sealed, seal, write_json, write_jsonl
from cotdistill.config.validation import format_first_fault, validate

SCHEMA_VERSION = 3
"""raise it when a document's fields change; folders of before are then refused, and their runs made again"""

Line = TypeVar("Line")


class Record(BaseModel):
    """A part of a document: fields of known types; others are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)


class Document(Record):
    """A JSON file of a run's folder."""

    schema_version: int = SCHEMA_VERSION
    run: str
    """the run's id"""
    hash: str
    """the digest of the config that it was written under"""

    def write(self, path: Path) -> None:
        """Write the document with its seal, atomically."""
        write_json(path, seal(self.model_dump()))

    @classmethod
    def read(cls, path: Path, remedy: str) -> Self:
        """Read and check the document. Raises UserError that ends in `remedy`; see the module."""
        return cls.parse(read_sealed(path, remedy), path, remedy)

    @classmethod
    def parse(cls, found: dict[str, Any], path: Path, remedy: str) -> Self:
        """Check what `read_sealed` gave of the file at `path`. Raises UserError as `read` does."""
        version = found.get("schema_version", 1)
        if version != SCHEMA_VERSION:
            raise UserError(
                f"{path}: written by another version of cotdistill (layout {version!r:.20}, this one reads "
                f"{SCHEMA_VERSION}); {remedy}"
            )
        try:
            return validate(cls, found, str(path))
        except UserError as error:
            raise UserError(f"{error}; {remedy}") from error


class RunConfig(Document):
    """`config.json`: every setting that the run's numbers depend on, and the engine that computed them."""

    engine: str
    config: dict[str, Any]


class Environment(Document):
    """`environment.json`: where and with what a run was trained."""

    versions: dict[str, str]
    hardware: dict[str, Any]
    """the machine that ended training, its `kernels`, and those of another kind that began it (`earlier`):
    see `jobs.hardware`; folders of older versions have neither"""
    device: str
    engine: str
    """the student's engine: `packed` or `reference`"""
    git_commit: str | None
    data_checksum: str
    split_ids: dict[str, str]
    """digest of each split's ids in their order: the same where two machines read the splits alike"""
    student: dict[str, Any]
    """where the initial weights are from: the hub's commit, and the digests of the files"""
    wall_s: float
    """seconds of training steps and validations, over all starts of the run"""
    peak_memory_mb: float
    started_at: str
    """ISO date and time of the first start"""
    finished_at: str


class Training(Document):
    """`training.json`: how training ended."""

    origin: str
    """digest of the code, the data and the initial weights that the run depends on"""
    steps: int = Field(ge=0)
    best_step: int = Field(ge=0)
    best_valid_accuracy: float = Field(ge=0, le=1)
    files: dict[str, str]
    """SHA-256 of every file that training wrote, by its path in the folder"""


class Score(Record):
    """The counts of one checkpoint's test answers."""

    step: int = Field(ge=0)
    test_accuracy: float = Field(ge=0, le=1)
    test_correct: int = Field(ge=0)
    test_n: int = Field(ge=0)
    test_groups: int = Field(ge=0)
    """groups of these examples that share a text; an example of its own is one"""
    mean_confidence: float | None = Field(ge=0, le=1)


class StrictScore(Score):
    """The counts of the checkpoint that was chosen on validation."""

    valid_accuracy: float = Field(ge=0, le=1)


class TeacherScore(Record):
    """How often the teacher's label is right in one split; `accuracy` is None where it has no label there."""

    accuracy: float | None = Field(ge=0, le=1)
    correct: int = Field(ge=0)
    n: int = Field(ge=0)
    unparsed: int = Field(ge=0)


class Metrics(Document):
    """`metrics.json`: a run's results on test, and the digests of the files beside it."""

    strict: StrictScore
    published: Score
    measures: dict[str, Any]
    """calibration, rationale quality and predictability of states; what was not measured is absent or None,
    and `reasons` of a part says why"""
    teacher: dict[str, TeacherScore]
    sizes: dict[str, int]
    """examples by split; `train` counts the run's own subset"""
    evaluation_wall_s: float = Field(ge=0)
    files: dict[str, str]
    """SHA-256 of the files that tables are made of"""


@dataclass(frozen=True)
class Answer:
    """The outcome of one test example, which is a line of `predictions.jsonl`."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    id: StrictStr
    input: StrictStr
    gold: StrictStr
    prediction: StrictStr
    correct: StrictBool
    confidence: StrictFloat
    """probability of the generated sequence, end token included"""
    options: list[StrictStr] = field(default_factory=list)
    """the distinct labels to choose from; empty for an open label set, and where they were not scored"""
    option_probabilities: list[StrictFloat] = field(default_factory=list)
    """of the options, in their order, with a sum of 1, by the score that `evaluation.option_score` names;
    evaluating adds them"""
    option_log_likelihoods: list[StrictFloat] = field(default_factory=list)
    """of the options: the sum over an option's tokens, end token included, in nats"""
    option_tokens: list[StrictInt] = field(default_factory=list)
    """the number of these tokens, end token included: the sum over it is the mean per token"""
    rationale: StrictStr | None = None
    """generated; None where none was asked for, or the method writes none alone"""
    teacher_rationale: StrictStr | None = None
    """the teacher's, where `rationale` is not None; empty where the teacher's output could not be read"""
    group: StrictStr = ""
    """the name that examples which share a text have in common; empty for an example of its own"""


class HistoryLine(BaseModel):
    """One line of `history.jsonl`: a step, and the numbers that were logged at it, by name."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)
    __pydantic_extra__: dict[str, float | None]

    step: int = Field(ge=0)
    epoch: float | None = None

    @property
    def values(self) -> dict[str, float | None]:
        """The logged numbers by name, such as `loss/total`; None in place of one that was not finite."""
        return dict(self.__pydantic_extra__)


def write_answers(path: Path, answers: Iterable[Answer]) -> None:
    """Write answers as JSON lines, atomically; fields that are None are left out."""
    rows = (asdict(answer) for answer in answers)
    write_jsonl(path, ({key: value for key, value in row.items() if value is not None} for row in rows))


def read_answers(path: Path) -> list[Answer]:
    """Read a file of answers. Raises UserError naming the line and the field that is wrong."""
    return _read_lines(path, Answer)


def read_history(path: Path) -> list[HistoryLine]:
    """Read a history. Raises UserError naming the line and the field that is wrong."""
    return _read_lines(path, HistoryLine)


def _read_lines(path: Path, kind: type[Line]) -> list[Line]:
    adapter = TypeAdapter(kind)
    lines = []
    for number, row in enumerate(read_jsonl(path), start=1):
        try:
            lines.append(adapter.validate_python(row))
        except ValidationError as error:
            raise UserError(format_first_fault(kind, error, f"{path}: entry {number}")) from error
    return lines
