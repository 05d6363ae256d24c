"""Define the settings of an experiment: the one source of names, types, defaults and meaning.

The commented defaults (`config/defaults.yaml`) and the JSON schema (`workflow/schema/`) are
generated from these models by `cotdistill schema`; a test catches drift.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    model_serializer,
    model_validator,
)

from cotdistill.config import bounds
from cotdistill.config.addresses import check_tracking_uri
from cotdistill.config.names import ExperimentName, MethodName, Name, check_entry
from cotdistill.config.paths import FolderPath, expand_folder


def _refuse_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("input should be a number")
    return value


# "5e-5" is a string to a YAML 1.1 reader: numbers are read leniently, but true is not 1.0
Number = Annotated[float, Field(strict=False), BeforeValidator(_refuse_bool)]


class Strict(BaseModel):
    """A model that refuses unknown keys and silent conversions, and cannot be changed later."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


def _refuse_fp16(value: str) -> str:
    if value == "fp16":
        raise ValueError("T5 diverges in fp16 (its activations overflow): use bf16 or fp32")
    return value


# fp16 is known here only to say why it is refused
Precision = Annotated[
    Literal["fp32", "bf16", "fp16"],
    AfterValidator(_refuse_fp16),
    WithJsonSchema({"type": "string", "enum": ["fp32", "bf16"]}),
]


def _without_defaults(schema: dict[str, Any]) -> None:
    """Remove the defaults from a model's JSON schema: a key that is left out is not set."""
    for node in schema["properties"].values():
        node.pop("default", None)


class Training(Strict):
    """How a student is trained. Defaults are the published hyperparameters of both papers."""

    steps: int = Field(10_000, ge=1, le=bounds.STEPS)
    """optimiser steps"""
    batch_size: int = Field(64, ge=1, le=bounds.BATCH)
    """examples a step, over all processes and accumulated micro-batches"""
    accumulation: int = Field(1, ge=1, le=bounds.BATCH)
    """micro-batches a batch is cut into, at most one an example; the gradient is that of the whole batch"""
    learning_rate: Number = Field(5e-5, ge=bounds.SMALLEST, le=bounds.LARGEST)
    """peak learning rate of AdamW"""
    warmup_steps: int = Field(0, ge=0, le=bounds.STEPS)
    """steps over which the rate rises linearly to its peak; then it falls linearly to 0"""
    weight_decay: Number = Field(0.0, ge=0, le=bounds.LARGEST)
    """decoupled weight decay of AdamW"""
    clip_norm: Number = Field(1.0, ge=bounds.SMALLEST, le=bounds.LARGEST)
    """gradients are scaled down to this global norm"""
    precision: Precision = "fp32"
    """fp32, or bf16 (autocast, weights stay fp32); fp16 is refused because T5 diverges in it"""
    max_input_tokens: int = Field(1024, ge=2, le=bounds.TOKENS)
    """inputs are cut at this length, prefix and end token included"""
    max_target_tokens: int = Field(256, ge=2, le=bounds.TOKENS)
    """targets are cut at this length, end token included"""
    eval_every: int = Field(250, ge=1, le=bounds.STEPS)
    """steps between evaluations on the validation split, which choose the checkpoint"""
    log_every: int = Field(50, ge=1, le=bounds.LOGGED_STEPS)
    """steps between lines of history.jsonl"""
    checkpoint_every: int = Field(500, ge=1, le=bounds.STEPS)
    """most steps between saved training states, from which a stopped run resumes"""
    checkpoint_minutes: Number | None = Field(10.0, gt=0, le=bounds.MINUTES)
    """most minutes between saved training states; null saves by steps alone"""
    patience: int | None = Field(None, ge=1, le=bounds.STEPS)
    """stop after this many evaluations without a better validation accuracy; null never stops early"""
    keep: Literal["both", "best", "last", "none"] = "both"
    """checkpoints whose weights stay once a run is evaluated; without them answering anew trains anew"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """cpu, cuda (an error where there is no GPU), or auto: a GPU where one is visible"""
    gpus: int = Field(1, ge=1, le=bounds.PROCESSES)
    """GPUs of one job, which share each batch; where the device is cpu, as many CPU processes"""
    engine: Literal["auto", "packed", "reference"] = "auto"
    """packed (T5 without padding), reference (transformers' forward pass), auto: packed for T5 on a CPU"""


class TrainingOverrides(Training):
    """Training settings that one dataset or student replaces; the same keys as `training`."""

    # only the keys that were given count: a dump has these alone, and the schema shows no defaults
    model_config = ConfigDict(json_schema_extra=_without_defaults)

    @model_serializer(mode="wrap")
    def _given(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in dump(self).items() if key in self.model_fields_set}


class Judge(Strict):
    """An LLM that rates rationales from 1 to 5. A key is read from COTDISTILL_JUDGE_KEY, never from here."""

    url: str = Field(pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$")
    """base of an OpenAI-compatible API, such as http://localhost:8000/v1"""
    model: str = Field(min_length=1)
    """the judge's name there"""
    examples: int = Field(50, ge=1, le=bounds.REQUESTS)
    """rationales rated for each run: the same test examples for all runs of a dataset"""
    max_requests: int = Field(1000, ge=1, le=bounds.REQUESTS)
    """most requests that one call sends, retries included; answers from the cache cost none"""
    max_tokens: int = Field(16, ge=1, le=bounds.ANSWER_TOKENS)
    """longest answer; a model that reasons first needs more"""
    timeout_s: Number = Field(60.0, ge=0.001, le=bounds.REQUEST_SECONDS)
    """seconds that one request may take"""
    retries: int = Field(4, ge=0, le=bounds.RETRIES)
    """further tries of a request that fails (no answer, 429, 5xx), with growing pauses"""


OptionScore = Literal["sum", "mean"]


def _refuse_few(examples: int) -> int:
    if 0 < examples < bounds.LEAST_MEASURED:
        raise ValueError(f"expected 0 (do not measure) or at least {bounds.LEAST_MEASURED} examples")
    return examples


class Evaluation(Strict):
    """How a student is evaluated."""

    batch_size: int = Field(64, ge=1, le=bounds.BATCH)
    """examples generated at once"""
    max_new_tokens: int = Field(64, ge=1, le=bounds.TOKENS)
    """longest generated label; what holds a rationale may have training.max_target_tokens"""
    rationales: bool = True
    """also generate and measure a rationale for every test example (methods that have a rationale task)"""
    bins: int = Field(10, ge=1, le=bounds.BINS)
    """bins of the calibration errors and of reliability diagrams"""
    option_score: OptionScore = "sum"
    """option score to calibrate: sum of log-likelihoods (only that is a probability), or mean per token"""
    predictability: Annotated[int, AfterValidator(_refuse_few)] = Field(256, ge=0, le=bounds.MEASURED)
    """examples of a split to measure how well one task's states tell the other's: 256 or more; 0: never"""
    free_running: bool = False
    """measure that on test also with what the student itself writes as targets, not teacher-forced"""
    judge: Judge | None = None
    """an LLM that rates generated rationales (`cotdistill judge`); null means none"""


class Tracking(Strict):
    """Where MLflow keeps the runs."""

    uri: Annotated[str, AfterValidator(check_tracking_uri)] | None = None
    """an MLflow tracking URI; null means the SQLite store <results>/mlflow.db; ${VARIABLE} for a password"""


class DatasetEntry(Strict):
    """A dataset of the grid."""

    name: Name
    """the name in paths, tables and figures"""
    adapter: str = ""
    """the adapter that reads it (a file of src/cotdistill/data/adapters); default: the name"""
    path: FolderPath | None = None
    """folder of the data, for `custom` or to override data_root; relative to the work folder"""
    answer: Literal["text", "equation"] | None = None
    """`custom` only: compare answers as text (default) or as the values of equations"""
    split: Literal["published", "group-disjoint"] = "published"
    """published: as the data come; group-disjoint: cut anew, with no group of examples in two splits"""
    training: TrainingOverrides = TrainingOverrides()
    """training settings for this dataset alone"""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return _fill(value, "name", "adapter", "name")


class ScratchStudent(Strict):
    """A T5 v1.1 architecture with fresh weights and a Unigram tokenizer trained on the training text."""

    d_model: int = Field(64, ge=8, le=bounds.WIDTH)
    """width"""
    d_ff: int = Field(128, ge=8, le=bounds.WIDTH)
    """width of the feed-forward layers"""
    d_kv: int = Field(16, ge=4, le=bounds.WIDTH)
    """width of one attention head"""
    heads: int = Field(4, ge=1, le=bounds.HEADS)
    """attention heads"""
    layers: int = Field(2, ge=1, le=bounds.LAYERS)
    """encoder layers, and as many decoder layers"""
    dropout: Number = Field(0.1, ge=0, le=bounds.DROPOUT)
    """dropout rate"""
    vocabulary: int = Field(1000, ge=32, le=bounds.VOCABULARY)
    """most pieces the tokenizer may have"""


class Compute(Strict):
    """What one training job of a student needs; a cluster profile turns it into a request."""

    threads: int = Field(1, ge=1, le=bounds.PROCESSES)
    """CPU threads of one job; part of the numbers, as sums are ordered by thread"""
    mem_mb: int = Field(2_000, ge=100, le=bounds.MEGABYTES)
    """memory of one job, in MB"""
    runtime: int = Field(60, ge=1, le=bounds.MINUTES)
    """time limit of one job, in minutes"""


def is_hub_id(name: str | None) -> bool:
    """Return whether `name` has the form of a hub id, owner/name. A folder of that name is preferred."""
    return name is not None and name.count("/") == 1 and not name.startswith((".", "/"))


class StudentEntry(Strict):
    """A student of the grid: a pretrained T5, or one built from scratch."""

    name: Name
    """the name in paths, tables and figures"""
    pretrained: FolderPath | None = None
    """a hub id or a local folder of any T5 (original, v1.1, flan)"""
    revision: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")
    """commit, tag or branch of the hub id; null: the default branch; what it stood for is recorded"""
    scratch: ScratchStudent | None = None
    """an architecture to build with fresh weights"""
    compute: Compute = Compute()
    """what one training job needs"""
    training: TrainingOverrides = TrainingOverrides()
    """training settings for this student alone"""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"pretrained": value}
        if isinstance(value, dict) and "name" not in value and isinstance(value.get("pretrained"), str):
            try:
                folder = expand_folder(value["pretrained"])
            except ValueError as error:
                raise ValueError(f"pretrained: {error}") from error
            value = {"name": folder.rstrip("/").split("/")[-1], **value}
        return check_entry(value)

    @model_validator(mode="after")
    def _one_kind(self) -> StudentEntry:
        if (self.pretrained is None) == (self.scratch is None):
            raise ValueError("give exactly one of 'pretrained' and 'scratch'")
        if self.revision is not None and not is_hub_id(self.pretrained):
            raise ValueError("'revision' is for a student from the hub: give its id as 'pretrained'")
        return self


class MethodEntry(BaseModel):
    """A method of the grid: a name, the method, and that method's own settings (alpha, beta, ...)."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, use_attribute_docstrings=True)

    name: MethodName
    """the name in paths, tables and figures"""
    method: str = ""
    """the method (a file of src/cotdistill/methods); default: the name"""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return _fill(value, "name", "method", "name")

    @property
    def settings(self) -> dict[str, Any]:
        """The method's own settings as given, without defaults."""
        return dict(self.__pydantic_extra__ or {})


Labels = Literal["gold", "teacher"]
Fraction = Annotated[float, Field(gt=0, le=1, strict=False), BeforeValidator(_refuse_bool)]


class CellFilter(Strict):
    """Cells of the grid: each key lists the values it matches; a key left out matches all."""

    dataset: list[str] | None = None
    student: list[str] | None = None
    method: list[str] | None = None
    labels: list[Labels] | None = None
    fraction: list[Fraction] | None = None
    seed: list[int] | None = None


def _choose_baseline(values: dict[str, Any]) -> str:
    """Return the name of the default baseline, from the values of the keys that stand before it."""
    names = [entry.name for entry in values["methods"]]
    return "dss" if "dss" in names else names[0]


class Experiment(Strict):
    """One experiment: a grid of runs and how they are trained, evaluated and compared."""

    experiment: ExperimentName
    """name of the experiment; everything lands in <results>/<experiment>/"""
    datasets: list[DatasetEntry] = Field(min_length=1)
    """grid axis: names, or entries with settings"""
    students: list[StudentEntry] = Field(min_length=1)
    """grid axis: hub ids, local folders, or entries with settings"""
    methods: list[MethodEntry] = Field(min_length=1)
    """grid axis: names, or entries with a name, a method and its settings"""
    labels: list[Labels] = Field(["gold"], min_length=1)
    """grid axis: train on gold labels or on the teacher's"""
    fractions: list[Fraction] = Field([1.0], min_length=1)
    """grid axis: fractions of the training split; smaller ones are subsets of larger ones"""
    seeds: list[Annotated[int, Field(ge=0, le=bounds.SEED)]] = Field([0, 1, 2, 3, 4], min_length=1)
    """grid axis: repetitions; subset, initial weights and example order follow from the seed"""
    include: list[CellFilter] | None = None
    """keep only the cells that match one of these filters"""
    exclude: list[CellFilter] = []
    """drop the cells that match one of these filters"""
    baseline: str = Field(default_factory=_choose_baseline)
    """method (by name) that the others are compared with; left out: dss where it is one, else the first"""
    relevant_difference: Number = Field(2.0, gt=0, le=100)
    """points of accuracy that would matter: the verdict says how many seeds would find such a difference"""
    results: FolderPath = "results"
    """folder of all results; ~ and $VARIABLE are expanded, here and in other folders ($$ is a dollar sign)"""
    data_root: FolderPath | None = None
    """folder of the published data; null means the environment variable COTDISTILL_DATA, else data/"""
    training: Training = Training()
    """training settings of every run"""
    evaluation: Evaluation = Evaluation()
    """evaluation settings of every run"""
    tracking: Tracking = Tracking()
    """MLflow store"""

    @property
    def folder(self) -> Path:
        """The folder that everything of the experiment lands in."""
        return Path(self.results, self.experiment)


def _fill(value: Any, short: str, key: str, source: str) -> Any:
    """Expand a plain string to `{short: value}`, and let `key` default to the value of `source`."""
    if isinstance(value, str):
        value = {short: value}
    if isinstance(value, dict) and source in value:
        value = {key: value[source], **value}
    return check_entry(value)
