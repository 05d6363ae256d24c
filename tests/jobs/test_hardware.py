"""What is recorded of a machine: enough to trace why two of them do not give the same bits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from cotdistill.common.files import read_json
from cotdistill.jobs import hardware
from cotdistill.jobs.train import train
from cotdistill.runs import outputs

INTEL = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 85
model name\t: Intel(R) Xeon(R) Platinum 8259CL CPU @ 2.50GHz
stepping\t: 7
flags\t\t: fpu sse sse4_1 sse4_2 avx avx2 fma f16c avx512f avx512_vnni amx_tile
power management:

processor\t: 1
model name\t: another
"""
ARM = """processor\t: 0
BogoMIPS\t: 243.75
Features\t: fp asimd evtstrm asimddp sve i8mm bf16
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x1
CPU part\t: 0xd40
"""


def describe_in_a_process(**environment: str) -> dict[str, Any]:
    """The kernels of a fresh process with these variables, and no others that choose kernels."""
    code = (
        "import json; from cotdistill.jobs.hardware import describe_kernels;"
        "print(json.dumps(describe_kernels('cpu')))"
    )
    clean = {key: value for key, value in os.environ.items() if key not in hardware.VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean | environment, capture_output=True, text=True, timeout=120,
        check=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_machines_of_different_capabilities_have_different_records():
    own, older = describe_in_a_process(), describe_in_a_process(ATEN_CPU_CAPABILITY="default")
    assert own["variables"] == {} and older["variables"] == {"ATEN_CPU_CAPABILITY": "default"}
    assert older["aten"] in ("DEFAULT", "NO AVX"), "what it computes with, not only what it was told"
    del own["variables"], older["variables"], older["aten"]
    capability = own.pop("aten")
    assert capability and own == older
    assert own["libraries"] and isinstance(own["onednn"], bool)


def test_threads_of_the_environment_are_no_other_kernels(monkeypatch: pytest.MonkeyPatch):
    """Snakemake sets them for each job, and the config's count holds."""
    before = hardware.describe_kernels("cpu")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert hardware.describe_kernels("cpu") == before
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    assert hardware.describe_kernels("cpu") != before


@pytest.mark.parametrize(
    ("text", "cpu", "about", "instructions"),
    [
        (INTEL, "Intel(R) Xeon(R) Platinum 8259CL CPU @ 2.50GHz",
         {"vendor_id": "GenuineIntel", "cpu family": "6", "model": "85", "stepping": "7"},
         ["amx_tile", "avx", "avx2", "avx512_vnni", "avx512f", "f16c", "fma", "sse4_1", "sse4_2"]),
        (ARM, None, {"CPU implementer": "0x41", "CPU architecture": "8", "CPU part": "0xd40"},
         ["asimd", "asimddp", "bf16", "i8mm", "sve"]),
        ("", None, {}, []),
        (None, None, {}, []),
    ],
)  # fmt: skip
def test_a_cpu_is_told_by_what_linux_says_of_it(
    text: str | None, cpu: str | None, about: dict[str, str], instructions: list[str],
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
):  # fmt: skip
    path = tmp_path / "cpuinfo"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr(hardware, "CPU_INFO", path)
    monkeypatch.setattr(hardware, "CACHES", tmp_path / "nowhere")
    found = hardware.describe_hardware("cpu", 2)
    assert found["cpu_id"] == about and found["instructions"] == instructions
    assert cpu is None or found["cpu"] == cpu
    assert (found["caches"], found["processes"], found["gpu"]) == ([], 2, None)


def test_a_run_that_was_begun_on_another_kind_of_machine_says_so(tiny: Any, tmp_path: Path):
    """As a requeue leaves it: its numbers are those of neither kind of machine alone."""
    run = tiny.run(tmp_path, "finetune")
    other = {"cpu": "Xeon", "cpu_id": {"model": "85"}, "kernels": {"aten": "AVX512"}}
    run.state.mkdir(parents=True)
    for hardware_of_start in (other, other):
        outputs.note_start(run, hardware_of_start)
    assert outputs.read_machines(run) == [other]
    train(run)
    found = read_json(run.files.environment)["hardware"]
    assert found["earlier"] == [other] and found["kernels"] == hardware.describe_kernels("cpu")


def test_a_start_noted_by_an_older_version_keeps_its_time(tiny: Any, tmp_path: Path):
    run = tiny.run(tmp_path, "finetune")
    run.state.mkdir(parents=True)
    (run.state / "started.json").write_text('{"started_at": "2026-01-02T03:04:05+00:00"}')
    assert outputs.read_machines(run) == []
    outputs.note_start(run, {"cpu": "Xeon"})
    assert outputs.read_start(run) == "2026-01-02T03:04:05+00:00"
    assert outputs.read_machines(run) == [{"cpu": "Xeon"}]


def test_a_gpu_is_told_with_what_its_products_are_rounded_by(monkeypatch: pytest.MonkeyPatch):
    """No GPU is at hand: its name and capability are given, the settings are torch's own."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    found = hardware.describe_hardware("cuda", 1)
    assert found["gpu"] == found["kernels"]["cuda"]["name"] == "NVIDIA H100"
    assert found["kernels"]["cuda"]["capability"] == [9, 0]
    settings = found["kernels"]["cuda"]
    assert {type(settings[name]) for name in ("cudnn_benchmark", "cudnn_tf32", "products_tf32")} == {bool}
    assert {"cuda", "cudnn"} <= set(settings)
    json.dumps(found)
