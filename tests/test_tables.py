"""benchmarks/tables.py: its plans name what exists, its page keeps what people wrote, and nothing runs twice."""

import json

import pytest
from benchmark_modules import ROOT, module

from arbiscale_jax.cli import config_flag


@pytest.mark.parametrize("name", ["photos", "faces", "wild", "lsun_bedroom", "lsun_tower"])
def test_a_plan_trains_what_it_measures_with_fields_that_exist(name):
    plans = module("tables_plan")
    kind, _, scene = name.partition("_")
    given = {"photos": ("train", "val"), "lsun": (name,)}.get(kind, ())
    assert not scene or name in plans.LSUN
    plan = getattr(plans, f"{kind}_plan")(*given)
    for one in plan.trainings:
        config = config_flag.load(str(ROOT / "configs" / f"{one.config}.py")).unlock()
        fields = dict(option.removeprefix("--config.").split("=") for option in one.options)
        config.lock().update_from_flattened_dict(fields)  # an unknown field is an error
    for table, measurements in plan.measurements.items():
        names = [one.name for one in plans.needed(plan, table)]
        assert {x for one in measurements for x in one.models} - {"bicubic"} <= set(names)
        if "ours_align" in names:  # after its predecessors
            order = [names.index(f"ours_{stage}") for stage in ("first_stage", "diffusion", "align")]
            assert order == sorted(order)
        assert ("mlp_first_stage" in names) == (table == "6")


def test_a_page_keeps_what_was_written_by_hand_and_other_tables(tmp_path):
    report, page = module("tables_report"), tmp_path / "TABLES.md"
    report.write(page, {"Table 2: b": "two", "Fig. 4: curves": "four"})
    page.write_text(page.read_text().replace("# The paper's tables", "# Mine") + "\n## What held\n\nWords.\n")
    report.write(page, {"Table 1: a": "one", "Table 2: b": "2", "Runs: photographs": "runs"})
    text = page.read_text()
    assert text.startswith("# Mine") and text.endswith("## What held\n\nWords.\n") and "two" not in text
    found = [line for line in text.splitlines() if line.startswith("## ")]
    assert found == ["## Runs: photographs", "## Table 1: a", "## Table 2: b", "## Fig. 4: curves", "## What held"]


def test_cells_are_those_of_the_results(tmp_path):
    report = module("tables_report")
    row = {"psnr_se": 0.5, "lpips_se": 0.01}
    summary = [
        {"method": "bicubic", "scale": 2.0, "psnr": 30.123, "lpips": 0.25, **row},
        {"method": "liif", "scale": 2.0, "psnr": 31.0, "lpips": 0.2, **row},
        {"method": "liif", "scale": 4.0, "psnr": 25.0, "lpips": 0.5, "psnr_se": float("nan"), "lpips_se": 0.0},
    ]
    lines = report.upscaling([({"summary": summary}, "")], ("psnr", "lpips")).splitlines()
    assert lines[0] == "| method | x2 | x4 |"
    assert lines[2] == "| bicubic | 30.12 ± 0.50 / 0.250 ± 0.010 | - |"
    assert lines[3] == "| LIIF | 31.00 ± 0.50 / 0.200 ± 0.010 | 25.00 / 0.500 |"
    speed = {"a": {"x8": {"fps": 2.0, "memory": 1.0}, "x12": {"fps": 1.0, "memory": 1.0}}}
    speed["IDM"] = {"x8": {"fps": 0.02, "memory": 3.0}, "x12": {"needs": 40.2}}
    assert report.speeds(speed).splitlines()[-2:] == ["| IDM | 0.02 (3.0 GiB) | needs 40 GiB |", "| ratio | 100 | - |"]


def test_what_is_done_is_not_done_again_and_a_failure_is_named(tmp_path, monkeypatch):
    runs, plans = module("tables_runs"), module("tables_plan")
    one, calls = plans.Training("liif", "baselines_liif_photos", ("--config.first_stage={runs}/x",)), []
    (tmp_path / "liif").mkdir()

    def stopped(script, options, log):
        calls.append(options)
        raise RuntimeError("stopped")

    monkeypatch.setattr(runs, "run", stopped)
    with pytest.raises(RuntimeError, match="stopped"):
        runs.train(one, tmp_path, 2.0)
    assert not json.loads((tmp_path / "liif.json").read_text())["done"]
    monkeypatch.setattr(runs, "run", lambda script, options, log: calls.append(options))
    for _ in range(2):
        runs.train(one, tmp_path, 2.0)
    assert len(calls) == 2 and calls[0] == calls[1]
    assert f"--config.first_stage={tmp_path}/x" in calls[1] and "--config.train.minutes=30" in calls[1]
    assert json.loads((tmp_path / "liif.json").read_text())["done"]

    monkeypatch.undo()
    with pytest.raises(RuntimeError, match="run_eval.py ended with code 2; .*log says why"):
        runs.run("run_eval.py", ["--no-such-flag"], tmp_path / "log")
    assert "no-such-flag" in (tmp_path / "log").read_text()
