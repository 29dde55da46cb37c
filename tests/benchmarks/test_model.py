"""benchmarks/gpu/model.py: its table is whole, and what it prints is named modelled."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from gpu import latencies, model
from sass import schedule
from sass.cases import Case


def test_the_table_has_what_the_schedule_asks_for_each_with_its_source():
    text = Path(schedule.__file__).read_text()
    asked = set(re.findall(r'(?:price|latency)\["([^"]+)"\]', text))
    asked |= {"fence of the GPU", "fence of the system", "sequential fence", "special function", "L2"}
    assert asked <= latencies.LATENCY.keys() and len(asked) > 8
    costs = [*latencies.LATENCY.values(), *latencies.OCCUPIES.values(), *latencies.SENDS.values()]
    assert all(re.match(r"\[(L24|L25|G|D|A)\]", cost.source) for cost in costs)
    assert model.prices(16).bytes_sent < model.prices(2).bytes_sent


@pytest.mark.parametrize(
    "case, planned",
    [
        (Case("forward", "lstm", "bf16", 512, 16), 0.8),
        (Case("backward", "lstm", "bf16", 512, 16), 1.3 * 0.8),
        (Case("forward", "lstm", "bf16", 1024, 16), 1.25),
        (Case("forward", "gru", "bf16", 512, 16), None),
        (Case("forward", "lstm", "f32", 512, 16), None),
    ],
)
def test_beside_the_plan(case, planned):
    step = SimpleNamespace(steps=2 / 3, standing=900, executed=700, busiest=[])
    made = schedule.Modelled(1830.0, {"issue": 1000.0, "hand-over": 830.0})
    plan = {"transport": "cluster", "blocks": "16", "slices": "3"}
    row = dict(zip(model.COLUMNS, model.Priced(case, step, plan, made).row(), strict=True))
    assert row["modelled_us"] == "1.50"  # slices one after another
    assert row["planned_us"] == (f"{planned:.2f}" if planned else "")
    assert row["ratio"] == (f"{1.5 / planned:.2f}" if planned else "")
    assert row["spent_cycles"] == "issue 1000; hand-over 830"
