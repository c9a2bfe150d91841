"""What instances of an LLM draw of the memory bandwidth: on average, but all at once where calls start together."""

from __future__ import annotations

import numpy as np
import pytest
from tests.performance.test_catalog import A100, MIX, eight_billion, profile

from scepsy.demand.statistics import LlmDemand, TokenUse
from scepsy.documents import Llm
from scepsy.performance import Catalog
from scepsy.pipeline import Caller, InstanceModel, LlmLoad, Shape, evaluate, instance_model


def bandwidth(groups: tuple[tuple[int, float], ...], replicas: int) -> float:
    """What one half of an A100 counts for, at a rate of one execution in ten seconds."""
    tokens = [TokenUse(mean, None) for mean in (MIX.input, MIX.output, 0.0)]
    calls = sum(size * frequency for size, frequency in groups)
    demand = LlmDemand(calls, 1.0, calls, groups, *tokens)
    llm = Llm(name="llm", model="m", max_model_len=2048)
    load = LlmLoad(llm, (Caller("w", 0.1, demand),))
    catalog = Catalog([profile(product=A100, points=eight_billion(MIX))], "1.0")
    model = instance_model(load, Shape(A100, 1, 5), catalog, 80 << 30)
    assert isinstance(model, InstanceModel)
    return float(evaluate(load, [model], np.array([0]), np.array([replicas])).bandwidth[0])


def test_single_calls_draw_little_on_average_however_many_instances_there_are() -> None:
    assert bandwidth(((1, 1.0),), 2) < bandwidth(((1, 1.0),), 1) < 0.2


def test_calls_that_start_together_keep_all_instances_busy_at_once() -> None:
    assert bandwidth(((8, 0.1),), 1) < 0.2
    assert 0.5 < bandwidth(((8, 0.1),), 2) < 0.95


def test_calls_that_seldom_start_together_count_for_their_part() -> None:
    alone, together = bandwidth(((1, 0.8),), 2), bandwidth(((8, 0.1),), 2)
    half = bandwidth(((1, 0.4), (8, 0.05)), 2)
    assert half == pytest.approx((alone + together) / 2, rel=0.1)
