"""Bad data, students, checkpoints and disks: one line that names the file, and nothing half-written."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import json
import os
import resource
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cotdistill.data import release

RUN = "demo/mini/dss/gold/1/0"
PREPARE_CQA = ("prepare", "--dataset", "cqa", "--student", "mini")
PREPARE = ("prepare", "--dataset", "demo", "--student", "mini")
CQA = {"question": "where is a nest?", "choices": ["tree", "sea", "car", "pot", "sun"], "answer": "tree"}
OUTPUT = "Birds nest in trees. So the answer is (a) tree."



@pytest.fixture
def cqa(work: Path, configure: Callable[..., None]) -> Callable[..., Path]:
    """Write a published data folder of cqa: rows and teacher outputs by split; returns the folder."""
    configure(datasets=["cqa"], data_root="published")

    def write(rows: list[Any] | str | None = None, outputs: list[Any] | str | None = None) -> Path:
        folder = work / "published" / "cqa"
        (folder / "llm").mkdir(parents=True)
        train = [CQA] * 3 if rows is None else rows
        for split, content in {"train": train, "test": [CQA] * 2}.items():
            text = content if isinstance(content, str) else "\n".join(json.dumps(row) for row in content)
            (folder / f"cqa_{split}.json").write_text(text)
        given = [OUTPUT] * 3 if outputs is None else outputs
        for split, content in {"train": given, "test": [OUTPUT] * 2}.items():
            text = content if isinstance(content, str) else json.dumps(content)
            (folder / "llm" / f"{split}_CoT_0.json").write_text(text)
        return folder

    return write


# --- data


def test_no_data_at_all(
    work: Path,
    configure: Callable[..., None],
    refused: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configure(datasets=["cqa"])
    monkeypatch.setenv("COTDISTILL_DATA", "nowhere")
    assert refused(*PREPARE_CQA) == "nowhere/cqa: no such folder; expected the data root to hold 'cqa/'"


def test_row_cut_off(cqa: Callable[..., Path], refused: Callable[..., str]) -> None:
    row = json.dumps(CQA)
    cqa(rows=f"{row}\n{row}\n{row[:40]}")
    line = refused(*PREPARE_CQA)
    assert line.startswith("published/cqa/cqa_train.json:3: not valid JSON")


def test_teacher_outputs_cut_off(cqa: Callable[..., Path], refused: Callable[..., str]) -> None:
    cqa(outputs=json.dumps([OUTPUT] * 3)[:-20])
    line = refused(*PREPARE_CQA)
    assert line.startswith("published/cqa/llm/train_CoT_0.json:1: not valid JSON") and "truncated" in line


def test_column_missing(cqa: Callable[..., Path], refused: Callable[..., str]) -> None:
    cqa(rows=[CQA, {"question": "?", "choices": CQA["choices"], "anwser": "tree"}, CQA])
    line = refused(*PREPARE_CQA)
    assert line.startswith("published/cqa/cqa_train.json:2: column 'answer' is missing")
    assert "did you mean 'anwser'?" in line


def test_fewer_teacher_outputs_than_rows(cqa: Callable[..., Path], refused: Callable[..., str]) -> None:
    cqa(outputs=[OUTPUT] * 2)
    line = refused(*PREPARE_CQA)
    assert line.startswith("published/cqa/llm: teacher outputs: 2 for 3 rows")


def test_empty_label(cqa: Callable[..., Path], refused: Callable[..., str]) -> None:
    cqa(rows=[CQA, CQA, {**CQA, "answer": " "}])
    line = refused(*PREPARE_CQA)
    assert line.startswith("published/cqa/cqa_train.json:3: column 'answer' is empty")


def test_custom_data_without_a_column(
    work: Path, configure: Callable[..., None], refused: Callable[..., str]
) -> None:
    configure(datasets=[{"name": "own", "adapter": "custom", "path": "own"}])
    (work / "own").mkdir()
    (work / "own" / "train.jsonl").write_text('{"input": "a", "label": "b"}\n')
    (work / "own" / "test.jsonl").write_text('{"input": "a", "label": "b", "rationale": "c"}\n')
    line = refused("prepare", "--dataset", "own", "--student", "mini")
    assert line.startswith("own/train.jsonl:1: column 'rationale' is missing")


# --- the published archive


@pytest.fixture
def served(work: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Have `cotdistill fetch` find these bytes at the address of the archive, on this machine."""
    root = work.parent / f"{work.name}-served"
    root.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def serve(content: bytes, blob_id: str | None = None) -> None:
        (root / "datasets.zip").write_bytes(content)
        real = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        url = f"http://127.0.0.1:{server.server_address[1]}/datasets.zip"
        fetch = functools.partial(release.fetch, url=url, blob_id=blob_id or real, attempts=1, pause=0)
        monkeypatch.setattr(release, "fetch", fetch)

    yield serve
    server.shutdown()
    server.server_close()


def archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return buffer.getvalue()


def test_archive_with_another_checksum(
    served: Callable[..., None], configure: Callable[..., None], refused: Callable[..., str]
) -> None:
    configure()
    served(archive({"datasets/cqa/cqa_train.json": b"{}"}), blob_id="0" * 40)
    line = refused("fetch")
    assert "git blob id" in line and f"expected {'0' * 40}" in line and "run again" in line


def test_archive_that_climbs_out(
    work: Path, served: Callable[..., None], configure: Callable[..., None], cotdistill: Callable[..., Any],
    complaint: Callable[[Any], str], listing: Callable[[], set[str]],
) -> None:  # fmt: skip
    configure()
    served(archive({"datasets/cqa/cqa_train.json": b"{}", "datasets/../../escaped": b"!"}))
    line = complaint(cotdistill("fetch"))
    assert "'datasets/../../escaped': unsafe path" in line
    # the archive itself is kept, so that one can look at it; nothing was unpacked
    assert listing() == {"config.yaml", "data/datasets.zip.part"}
    assert not list(work.parent.rglob("escaped"))


def test_fetch_unpacks_where_it_says(
    served: Callable[..., None], configure: Callable[..., None], cotdistill: Callable[..., Any]
) -> None:
    configure(data_root="published")
    served(archive({"datasets/cqa/cqa_train.json": b"{}"}))
    assert cotdistill("fetch").out == "published data in published\n"
    assert Path("published/cqa/cqa_train.json").read_bytes() == b"{}"


def test_server_that_refuses(
    served: Callable[..., None], configure: Callable[..., None], refused: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    configure()
    served(b"")
    url = release.fetch.keywords["url"] + "x"
    monkeypatch.setattr(release, "fetch", functools.partial(release.fetch, url=url))
    assert "404" in refused("fetch")


# --- students


def t5_folder(folder: Path, **changes: Any) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "t5", "d_model": 16, **changes}))


def test_student_folder_of_another_model(
    work: Path, configure: Callable[..., None], refused: Callable[..., str]
) -> None:
    t5_folder(work / "checkpoint", model_type="bert")
    configure(students=[{"name": "mini", "pretrained": "./checkpoint"}])
    line = refused(*PREPARE)
    assert line == "student './checkpoint': checkpoint/config.json is a model of type 'bert'; expected 't5'"


def test_student_folder_that_is_empty(
    work: Path, configure: Callable[..., None], refused: Callable[..., str]
) -> None:
    (work / "checkpoint").mkdir()
    configure(students=[{"name": "mini", "pretrained": "./checkpoint"}])
    assert "checkpoint/config.json is missing: expected a T5 checkpoint folder" in refused(*PREPARE)


def test_student_that_is_nowhere(configure: Callable[..., None], refused: Callable[..., str]) -> None:
    configure(students=[{"name": "mini", "pretrained": "./checkpoint"}])
    assert refused(*PREPARE).startswith("student './checkpoint': no such folder")


def test_tokenizer_without_an_end_token(
    work: Path, configure: Callable[..., None], refused: Callable[..., str]
) -> None:
    from tokenizers import Tokenizer, models
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(vocab_size=8, d_model=16, d_ff=16, d_kv=8, num_heads=2, num_layers=1)
    T5ForConditionalGeneration(config).save_pretrained(work / "checkpoint")
    pieces = [("<pad>", 0.0), ("<unk>", 0.0), ("a", -1.0)]
    Tokenizer(models.Unigram(pieces, unk_id=1)).save(str(work / "checkpoint" / "tokenizer.json"))
    (work / "checkpoint" / "tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "unk_token": "<unk>"}
    ))  # fmt: skip
    configure(students=[{"name": "mini", "pretrained": "./checkpoint"}])
    assert refused(*PREPARE) == "student './checkpoint': its tokenizer has eos_token None; expected '</s>'"


# --- runs


def test_train_before_prepare(configure: Callable[..., None], refused: Callable[..., str]) -> None:
    configure()
    assert refused("train", "--run", RUN) == "results/tiny/prepared/demo/mini/manifest.json: no such file"


def test_evaluate_before_train(configure: Callable[..., None], refused: Callable[..., str]) -> None:
    configure()
    assert refused("evaluate", "--run", RUN) == f"results/tiny/runs/{RUN}/training.json: no such file"


def test_collect_before_train(configure: Callable[..., None], refused: Callable[..., str]) -> None:
    configure()
    line = refused("collect")
    assert line.startswith(f"2 of 2 runs have no metrics.json below results/tiny/runs: {RUN}, demo/")


@pytest.mark.parametrize("command", ["compare", "figures"])
def test_results_before_collect(
    command: str, configure: Callable[..., None], refused: Callable[..., str]
) -> None:
    configure()
    line = refused(command)
    assert line == "results/tiny/results.parquet: no such table; run the collect stage first"


@pytest.mark.parametrize("command", ["train", "evaluate", "collect"])
def test_run_folder_of_another_config(
    command: str, trained: Path, configure: Callable[..., None], refused: Callable[..., str]
) -> None:
    configure(training={"learning_rate": 0.001})
    line = refused(command, *([] if command == "collect" else ["--run", RUN]))
    found = json.loads((trained / "training.json").read_text())["hash"]
    assert str(trained) in line and "another config" in line or "trained with config" in line
    assert found in line and "expected" in line or "now says" in line


def test_second_training_has_nothing_to_do(trained: Path, cotdistill: Callable[..., Any]) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    found = cotdistill("train", "--run", RUN)
    assert (found.code, found.out, found.err) == (0, f"{RUN}: already trained, nothing to do\n", "")
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before


def test_evaluate_prints_one_line(trained: Path, cotdistill: Callable[..., Any]) -> None:
    found = cotdistill("evaluate", "--run", RUN)
    metrics = json.loads((trained / "metrics.json").read_text())
    accuracy = f"{metrics['strict']['test_accuracy']:.4f}"
    assert found.code == 0 and found.out.startswith(f"{RUN}: strict {accuracy} (step 4), published ")
    assert found.out.endswith(", n=259 in 70 groups\n") and found.out.count("\n") == 1


def test_checkpoint_cut_off(trained: Path, process: Callable[..., Any], complaint: Callable[[Any], str],
                            listing: Callable[[], set[str]]) -> None:  # fmt: skip
    weights = trained / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    (trained / "metrics.json").unlink()
    (trained / "predictions.jsonl").unlink()
    before = listing()
    line = complaint(process("evaluate", "--run", RUN))
    assert str(trained / "model") in line and "corrupt: its bytes are not those that training wrote" in line
    assert listing() == before


def test_prepared_data_cut_off(trained: Path, refused: Callable[..., str]) -> None:
    arrow = Path("results/tiny/prepared/demo/mini/train.arrow")
    arrow.write_bytes(arrow.read_bytes()[:1000])
    shutil.rmtree(trained)
    line = refused("train", "--run", RUN)
    assert line.startswith(f"{arrow}: corrupt: its bytes are not those that were prepared")
    assert "prepare again" in line


def test_no_gpu(trained: Path, configure: Callable[..., None], process: Callable[..., Any],
                complaint: Callable[[Any], str], listing: Callable[[], set[str]]) -> None:  # fmt: skip
    configure(seeds=[1], training={"device": "cuda"})
    before = listing()
    line = complaint(process("train", "--run", "demo/mini/dss/gold/1/1"))
    assert line.startswith("training.device is 'cuda' but no GPU is visible")
    assert listing() == before


def test_loss_that_is_no_number(
    trained: Path, configure: Callable[..., None], process: Callable[..., Any]
) -> None:
    configure(seeds=[1], training={"learning_rate": 3e38, "log_every": 1})
    found = process("train", "--run", "demo/mini/mi/gold/1/1")
    assert found.code == 1 and "Traceback" not in found.err
    line = found.err.splitlines()[-1]  # a progress bar may stand above it
    assert line.startswith("error: demo/mini/mi/gold/1/1: ") and "not finite at step 2 (" in line, found.err
    assert "loss term '" in line and "'total'" not in line, "names the term, not the sum"
    assert "lower learning rate" in line
    folder = Path("results/tiny/runs/demo/mini/mi/gold/1/1")
    assert not (folder / "training.json").exists() and not (folder / "model").exists()
    assert "NaN" not in next(folder.rglob("history.jsonl")).read_text()


# --- disks


def limited(size: int) -> Callable[[], None]:
    """Let no file grow beyond `size` bytes: what a full disk looks like to a writer."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("size", [2_000, 20_000])
def test_disk_full_while_preparing(
    size: int, configure: Callable[..., None], process: Callable[..., Any], complaint: Callable[[Any], str],
    listing: Callable[[], set[str]],
) -> None:  # fmt: skip
    configure()
    before = listing()
    line = complaint(process(*PREPARE, preexec_fn=limited(size)))
    assert "File too large" in line
    assert listing() == before


def test_disk_full_while_training(
    trained: Path, configure: Callable[..., None], process: Callable[..., Any],
    listing: Callable[[], set[str]],
) -> None:  # fmt: skip
    configure(seeds=[1], training={"checkpoint_every": 2})
    found = process("train", "--run", "demo/mini/dss/gold/1/1", preexec_fn=limited(8_000))
    assert found.code == 1 and "Traceback" not in found.err, found.err
    line = found.err.splitlines()[-1]
    assert line.startswith("error: ") and "cannot write" in line and "too large" in line, found.err
    folder = "results/tiny/runs/demo/mini/dss/gold/1/1"
    left = {path.removeprefix(folder) for path in listing() if path.startswith(folder)}
    assert all("model" not in path and "training.json" not in path for path in left), left
    # with room again, the same command goes through
    found = process("train", "--run", "demo/mini/dss/gold/1/1")
    assert found.code == 0 and Path(folder, "training.json").is_file(), found.err


RESULTS = [("a file", "results"), ("below a file", "results/deep")]


@pytest.mark.parametrize(("kind", "results"), RESULTS, ids=[kind for kind, _ in RESULTS])
def test_results_folder_that_is_a_file(
    kind: str, results: str, work: Path, configure: Callable[..., None], refused: Callable[..., str]
) -> None:
    (work / "results").write_text("mine")
    configure(results=results)
    assert refused(*PREPARE) == "config.yaml: 'results': results is there and is no folder"
    assert (work / "results").read_text() == "mine"


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no file system here that refuses even root")
def test_results_folder_that_cannot_be_written(
    configure: Callable[..., None], refused: Callable[..., str]
) -> None:
    configure(results="/proc/cotdistill")
    line = refused(*PREPARE)
    assert line.startswith("cannot write /proc/cotdistill/tiny/prepared/demo/mini: ")


def test_training_into_a_folder_that_cannot_be_written(
    trained: Path, configure: Callable[..., None], refused: Callable[..., str]
) -> None:
    shutil.rmtree(trained)
    trained.write_text("mine")
    line = refused("train", "--run", RUN)
    assert str(trained) in line and trained.read_text() == "mine"
