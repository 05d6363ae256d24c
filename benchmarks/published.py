"""The published codes' way to train and evaluate a student: what the benchmark compares with.

Written anew after the codes of both papers (DSS and MI), on today's transformers: its `Seq2SeqTrainer`, a
collator that turns a data frame of examples into two padded batches, a loss of two full forward passes (and,
for `mi`, of two full softmaxes), `trainer.predict` with generation. Every run tokenises its data. It shares
no code with `cotdistill`, so that its losses are a check of ours; the tests hold the two against each other.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from datasets import disable_progress_bars as without_bars
from transformers import DataCollatorForSeq2Seq, PrinterCallback, Seq2SeqTrainer, Seq2SeqTrainingArguments

MAX_INPUT, MAX_TARGET = 1024, 256
"""tokens at which inputs and targets are cut"""
LEARNING_RATE, CLIP = 5e-5, 1.0
NEW_TOKENS = 64
ALPHA, BETA = 0.5, 0.1
METHODS = ("finetune", "dss", "mi-released", "mi-paper")

EXPLAIN = {"expl_input_ids": "input_ids", "expl_attention_mask": "attention_mask", "aux_labels": "labels"}
"""columns of the rationale task, and what the model calls them"""
PREDICT = ["input_ids", "attention_mask", "labels"]


def tokenise(rows: dict[str, list[str]], tokenizer: Any, method: str) -> Dataset:
    """Columns `input`, `label` and `rationale` as token ids: of one task without prefix, or of both tasks."""
    without_bars()

    def one_task(rows: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        return _task(rows["input"], rows["label"], tokenizer, "")

    def two_tasks(rows: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        made = _task(rows["input"], rows["label"], tokenizer, "predict: ")
        explained = _task(rows["input"], rows["rationale"], tokenizer, "explain: ")
        return {**made, **{column: explained[name] for column, name in EXPLAIN.items()}}

    texts = Dataset.from_dict({name: rows[name] for name in ("input", "label", "rationale")})
    work = one_task if method == "finetune" else two_tasks
    return texts.map(work, batched=True, remove_columns=texts.column_names)


def _task(inputs: list[str], targets: list[str], tokenizer: Any, prefix: str) -> dict[str, list[list[int]]]:
    made = tokenizer([prefix + text for text in inputs], max_length=MAX_INPUT, truncation=True)
    labels = tokenizer(targets, max_length=MAX_TARGET, truncation=True)
    return {
        "input_ids": made["input_ids"], "attention_mask": made["attention_mask"],
        "labels": labels["input_ids"],
    }  # fmt: skip


class TwoTaskCollator(DataCollatorForSeq2Seq):
    """Pads each task to its longest example; through a data frame, as published."""

    def __call__(self, features: list[dict[str, Any]], return_tensors: str | None = None) -> dict[str, Any]:
        frame = pd.DataFrame(features)
        predict = frame.loc[:, ~frame.columns.isin(list(EXPLAIN))].to_dict("records")
        explain = frame.loc[:, ~frame.columns.isin(PREDICT)].rename(columns=EXPLAIN).to_dict("records")
        return {
            "pred": super().__call__(predict, return_tensors),
            "expl": super().__call__(explain, return_tensors),
        }


def mutual_information(
    pred: torch.Tensor, expl: torch.Tensor, labels: torch.Tensor, aux: torch.Tensor, variant: str
) -> torch.Tensor:
    """The term in one of its two readings, from both tasks' logits (B, T, V) and labels (B, T). A scalar.

    `released` includes padding and applies a second softmax; `paper` leaves padding out and normalises.
    """
    p = torch.softmax(pred.detach().float(), dim=-1)
    q = torch.softmax(expl.float(), dim=-1)
    if variant == "released":
        p, q = p.max(dim=1).values, q.max(dim=1).values
        return -(p * torch.log_softmax(q, dim=-1)).sum(-1).mean()
    p = (p * (labels != -100).unsqueeze(-1)).max(dim=1).values
    q = (q * (aux != -100).unsqueeze(-1)).max(dim=1).values
    p, q = p / p.sum(-1, keepdim=True), q / q.sum(-1, keepdim=True)
    return -(p * torch.log(q)).sum(-1).mean()


class GivenOrder(torch.utils.data.Sampler[int]):
    """Examples in an order that both ways share."""

    def __init__(self, rows: Sequence[int]) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[int]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


class OrderedTrainer(Seq2SeqTrainer):
    """transformers' trainer as it is, but for the order of the examples; `finetune` trains with this."""

    rows: Sequence[int] | None = None

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler[int] | None:
        return super()._get_train_sampler(train_dataset) if self.rows is None else GivenOrder(self.rows)


class TwoTaskTrainer(OrderedTrainer):
    """`alpha * label + (1 - alpha) * rationale`, `+ beta * mutual information` where there is a variant."""

    variant: str | None = None

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Two forward passes, each loss the mean over its tokens."""
        pred, expl = model(**inputs["pred"]), model(**inputs["expl"])
        loss = ALPHA * pred.loss + (1 - ALPHA) * expl.loss
        if self.variant is not None:
            labels, aux = inputs["pred"]["labels"], inputs["expl"]["labels"]
            loss = loss + BETA * mutual_information(pred.logits, expl.logits, labels, aux, self.variant)
        return (loss, {"pred": pred, "expl": expl}) if return_outputs else loss

    def prediction_step(
        self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None, **options: Any
    ) -> Any:
        """Of the label task alone: the published default, which writes no rationales."""
        return super().prediction_step(model, inputs["pred"], False, ignore_keys, **options)


def trainer(
    model: Any, tokenizer: Any, data: Dataset, method: str, folder: Path, *, batch: int, steps: int,
    precision: str = "fp32", rows: Sequence[int] | None = None, log: bool = False,
    rate: float = LEARNING_RATE,
) -> OrderedTrainer:  # fmt: skip
    """A trainer with the published settings; trains on `data` in the order of `rows`, at random without.

    log: note every step's loss in `state.log_history`. Device: CUDA where there is one.
    """
    logging.getLogger("transformers").setLevel(logging.ERROR)
    arguments = Seq2SeqTrainingArguments(
        str(folder), remove_unused_columns=False, max_steps=steps, learning_rate=rate,
        lr_scheduler_type="linear", weight_decay=0.0, max_grad_norm=CLIP, per_device_train_batch_size=batch,
        per_device_eval_batch_size=64, predict_with_generate=True, bf16=precision == "bf16",
        use_cpu=not torch.cuda.is_available(), seed=0, save_strategy="no", eval_strategy="no",
        logging_strategy="steps" if log else "no", logging_steps=1, report_to=[], disable_tqdm=True,
    )  # fmt: skip
    two = method != "finetune"
    collator = (TwoTaskCollator if two else DataCollatorForSeq2Seq)(tokenizer, model=model)
    made = (TwoTaskTrainer if two else OrderedTrainer)(
        model=model, args=arguments, train_dataset=data, data_collator=collator, processing_class=tokenizer
    )
    made.rows = rows
    if isinstance(made, TwoTaskTrainer) and method.startswith("mi-"):
        made.variant = method.removeprefix("mi-")
    made.remove_callback(PrinterCallback)
    return made


def answers(trainer: OrderedTrainer, data: Dataset, tokenizer: Any) -> list[str]:
    """Generated labels in the order of the data: file order, greedy, at most 64 new tokens."""
    found = trainer.predict(data, max_new_tokens=NEW_TOKENS, num_beams=1, do_sample=False).predictions
    ids = np.where(np.asarray(found) < 0, tokenizer.pad_token_id, found)
    return [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]


@torch.no_grad()
def option_scores(
    trainer: OrderedTrainer, data: Dataset, options: Sequence[Sequence[str]], tokenizer: Any, batch: int = 64
) -> list[list[float]]:
    """log p(option | input) of every example's options, in the order of the data.

    The published codes have no such scores. This is how one would add them with the same library: padded
    batches in file order, the encoder once a batch, and for each place among the options a forward pass of
    the decoder with their tokens as labels.
    """
    model, device = trainer.model.eval(), trainer.args.device
    bf16 = torch.autocast(device.type, torch.bfloat16, enabled=trainer.args.bf16)
    found: list[list[float]] = [[] for _ in options]
    for start in range(0, len(options), batch):
        rows = range(start, min(start + batch, len(options)))
        columns = {name: data[rows.start : rows.stop][name] for name in ("input_ids", "attention_mask")}
        inputs = tokenizer.pad(columns, return_tensors="pt").to(device)
        with bf16:
            encoded = model.get_encoder()(**inputs)
        for place in range(max(len(options[row]) for row in rows)):
            texts = [options[row][place] if place < len(options[row]) else "" for row in rows]
            labels = tokenizer(texts, padding=True, return_tensors="pt")
            ids = labels["input_ids"].masked_fill(labels["attention_mask"] == 0, -100).to(device)
            with bf16:
                logits = model(
                    encoder_outputs=encoded, attention_mask=inputs["attention_mask"], labels=ids
                ).logits
            logs = logits.float().log_softmax(-1).gather(2, ids.clamp(min=0)[..., None])[..., 0]
            sums = (logs * (ids != -100)).sum(1).tolist()
            for row, score in zip(rows, sums, strict=True):
                if place < len(options[row]):
                    found[row].append(score)
    return found
