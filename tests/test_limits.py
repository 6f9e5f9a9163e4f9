"""The limit counts what the update computes, and peers train on the same task."""

import numpy as np
import pytest
import torch

from amarl_core import limits
from amarl_core.peers import PEERS, peer_rows
from amarl_core.perf_records import packed_ratio
from amarl_core.ppo_update import Hyper, gradients


def test_operations_by_hand():
    """One input, one unit, one slot: six layers of one multiply-add forward, six by weight, four by input."""
    assert limits.update_flops(1, 1, 1) == 2 * (6 + 6 + 4)
    assert limits.update_flops(93, 32, 10) == 2 * (2 * 2 * 93 * 32 + 3 * (2 * 32 * 32 + 32 * 10 + 32))


def test_operations_are_those_that_torch_counts_in_the_update(monkeypatch):
    from torch.utils.flop_counter import FlopCounterMode

    n, o, w, m = 8, 5, 4, 3
    shapes = [(w, o), (w,), (w, w), (w,), (m, w), (m,), (w, o), (w,), (w, w), (w,), (1, w), (1,)]
    p = [torch.rand(shape) for shape in shapes]
    hyper = Hyper(True, 0.2, 0.0, 0.5, 0.5, 1e-3, 0.9, 0.999, 1e-8)
    data = (torch.rand(n, o), torch.ones(n, m, dtype=torch.bool), torch.zeros(n, dtype=torch.int64))
    with FlopCounterMode(display=False) as counter:
        gradients(p, *data, torch.zeros(n), torch.rand(n), torch.rand(n), hyper)
    assert counter.get_total_flops() == n * limits.update_flops(o, w, m)


def test_products_are_all_of_the_updates(monkeypatch):
    done = []
    monkeypatch.setattr(torch, "mm", lambda a, b, out: done.append(2 * a.shape[0] * a.shape[1] * b.shape[1]))
    limits.products(8, 5, 4, 3)()
    assert sum(done) == 8 * limits.update_flops(5, 4, 3)


def test_limit_and_share_follow_from_the_rates(toy):
    found = limits.limit_rows(toy, days=1, repeats=1, seconds=0.02)
    for method in ("sarl", "amarl"):
        own = found[method]
        assert own["limit_s"] == pytest.approx(own["env_steps"] * found["shapes"]["flops"] / 1e9
                                               / found["gflops"]["shapes_all"])  # fmt: skip
        assert own["share"] == pytest.approx(own["limit_s"] / own["train_s"])
    assert min(found["gflops"].values()) > 0 and packed_ratio(found) > 0


def test_every_peer_learns_on_the_task_and_is_timed():
    names = [name for name, (kind, _) in PEERS.items() if kind != "processes"]
    rows = peer_rows("toy", 96, {name: PEERS[name] for name in names})
    assert rows["peer"].tolist() == names
    assert (rows["env_steps"] >= 96).all()
    assert np.allclose(rows["steps_per_s"], rows["env_steps"] / rows["seconds"])
