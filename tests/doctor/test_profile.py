"""The profile is found where Snakemake finds it and read as Snakemake reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cotdistill.common.errors import UserError
from cotdistill.orchestration.doctor.profile import Profile, find

OWN = {"mem_mb": 3000, "runtime": 90, "gpu": 1}


def write(path: str, value: Any) -> Path:
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(value if isinstance(value, str) else yaml.safe_dump(value))
    return target


def test_a_name_leads_to_the_folder_here_before_that_of_the_profiles() -> None:
    write("profiles/slurm/config.yaml", {"jobs": 1})
    assert find("slurm").number("jobs", 0) == 1
    write("slurm/config.yaml", {"jobs": 2})
    assert find("slurm").number("jobs", 0) == 2
    assert find("profiles/slurm").number("jobs", 0) == 1
    assert find("profiles/slurm/config.yaml").number("jobs", 0) == 1


def test_the_newest_version_that_this_snakemake_reads_is_taken() -> None:
    for name, jobs in (("config.yaml", 1), ("profile.v8+.yaml", 8), ("config.v99+.yaml", 99), ("x.yaml", 7)):
        write(f"slurm/{name}", {"jobs": jobs})
    found = find("slurm")
    assert found.number("jobs", 0) == 8 and found.path == Path("slurm/profile.v8+.yaml")


BROKEN = {"not YAML": "{", "a list": "- a", "code": "a: !!python/object:os.x {}", "deep": "[" * 1100}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_broken_profile_is_named(text: str) -> None:
    write("slurm/config.yaml", text)
    with pytest.raises(UserError, match=r"slurm/config.yaml: "):
        find("slurm")


def test_a_missing_profile_says_where_it_was_looked_for() -> None:
    with pytest.raises(UserError, match="no profile 'nope' .*profiles/nope"):
        find("nope")


@pytest.mark.parametrize(
    "chosen",
    [{"train": {"gpu": 0, "gres": "'gpu:1'"}}, ["train:gpu=0", "train:gres=gpu:1"]],
    ids=["as a mapping", "as a list"],
)
def test_what_is_set_for_a_rule_goes_before_its_own(chosen: Any) -> None:
    found = Profile(settings={"set-resources": chosen}).resources("train", OWN)
    assert found["gpu"] == 0 and found["gres"] == "gpu:1" and found["mem_mb"] == 3000


@pytest.mark.parametrize(
    "defaults",
    [{"slurm_partition": "gpu", "slurm_extra": "'--signal=USR1@60'", "mem_mb": 1},
     ["slurm_partition=gpu", "slurm_extra='--signal=USR1@60'", "mem_mb=1"]],
    ids=["as a mapping", "as a list"],
)  # fmt: skip
def test_defaults_give_way_to_what_the_rule_asks(defaults: Any) -> None:
    found = Profile(settings={"default-resources": defaults}).resources("train", OWN)
    assert found["slurm_partition"] == "gpu" and found["slurm_extra"] == "--signal=USR1@60"
    assert found["mem_mb"] == 3000


def test_expressions_are_left_to_snakemake_and_durations_are_read() -> None:
    settings = {"set-resources": {"train": {"mem_mb": "attempt * 2000", "runtime": "2d"}}}
    found = Profile(settings=settings).resources("train", OWN)
    assert found["mem_mb"] == 3000 and found["runtime"] == 2880


@pytest.mark.parametrize("value", [None, 3, "x", [None, 1], {"train": None}, {"train": ["a"]}, {3: 4}, [[]]])
def test_resources_of_any_shape_do_no_harm(value: Any) -> None:
    settings = {"set-resources": value, "default-resources": value, "resources": value, "jobs": value}
    profile = Profile(settings=settings)
    assert profile.resources("train", OWN)["runtime"] == 90
    assert profile.local_gpus == 0 and isinstance(profile.number("jobs", 5), int)
