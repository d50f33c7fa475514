import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from bench import train as speed
from bench.cold import bench_cold, draw_items, without
from bench.losses import LOSSES, bench_losses
from bench.rankers import bench_rankers
from tests.runs import tiny_run
from training.cli import build_app
from training.data.dataset import load
from training.data.splits import TEST, TRAIN, VALIDATION, split
from training.errors import UserError
from training.objective import Objective
from training.recipe import Recipe

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def data(tmp_path):
    tiny_run(tmp_path)
    return tmp_path / "data"


def test_products_are_counted_forwards_and_backwards():
    left, right = torch.rand(3, 4, requires_grad=True), torch.rand(4, 5, requires_grad=True)
    with speed.GemmCounter() as counter:
        (left @ right).sum().backward()
    assert counter.flops == 3 * (2 * 3 * 4 * 5)
    assert speed.Gemm(1, 3, 4, 5, torch.float32) in counter.counts


def test_made_up_data_has_as_many_events_as_asked_in_order_of_user():
    data = speed.made_up(5_000, 40, seed=1)
    assert len(data.train.item) == 5_000 and data.train.item.max() < 40
    assert (np.diff(data.train.user) >= 0).all()
    assert np.bincount(data.train.user).min() >= speed.LEAST_EVENTS


def test_training_speed_says_how_it_grows_and_how_near_it_is_to_products_alone(monkeypatch):
    monkeypatch.setattr(speed, "GEMM_S", 0.001)
    monkeypatch.setattr(speed, "rectools_directory", lambda: None)
    figures = speed.bench_train(
        (1_000, 2_000), items=50, compared_events=1_000, recipe=Recipe(), seed=0, report=print
    )
    assert list(figures["sizes"]) == ["1000", "2000"]
    for size, found in figures["sizes"].items():
        assert found["events"] == int(size) and found["events_per_s"] > 0
        assert {"gflop_per_s", "gemm_gflop_per_s", "of_gemm", "epoch_s"} < set(found)
    assert figures["growth"]["events"] == 2
    assert "sasrec" not in figures  # RecTools is not there


def test_every_loss_of_the_recipe_can_be_compared(data):
    assert "softmax" in LOSSES and len(LOSSES) >= 7
    for loss in LOSSES:  # each is one that training knows
        Objective(Recipe(loss=loss), np.ones(5, np.int64))
    figures = bench_losses(
        data, losses=("softmax", "bpr"), protocol="user-random", epochs=1, seed=0, report=print
    )
    assert list(figures["losses"]) == ["softmax", "bpr"]
    for found in figures["losses"].values():
        assert found["best_epoch"] == 1 and 0 <= found["test"]["ndcg@10"]["value"] <= 1
    with pytest.raises(UserError, match="--losses 'hinge' is unknown"):
        bench_losses(data, losses=("hinge",), protocol="x", epochs=1, seed=0, report=print)


def test_cold_items_are_in_no_training_event_and_in_every_test_event(data):
    dataset = load(data)
    whole = split(dataset, "user-random")
    cold = draw_items(whole, 0.3, seed=0)
    cut = without(dataset, whole, cold)
    known = np.isin(cut.fold, (TRAIN, VALIDATION))
    assert not cold[dataset.item[known]].any() and cold[dataset.item[cut.fold == TEST]].all()
    kept = (whole.fold == TEST) & cold[dataset.item]
    assert ((cut.fold == TEST) == kept).all() and kept.any()


def test_unseen_items_are_judged_beside_what_popularity_knows_of_them(data):
    figures = bench_cold(
        data, protocol="user-random", share=0.4, epochs=1, recipe=None, seed=0, report=print
    )
    whole, unseen = figures["among"]["whole catalogue"], figures["among"]["unseen items"]
    assert set(whole) == {"two-tower", "popularity", "random", "true popularity"}
    assert unseen["random"]["recall@50"]["value"] == 1  # fewer than 50 are left to choose from
    assert figures["test_events"] > 0 and figures["unseen_items"] == round(0.4 * 19)
    assert figures["unseen_by_features"]


def test_unseen_items_are_judged_under_a_recipe_as_it_was_given(data):
    figures = bench_cold(
        data, protocol="user-random", share=0.4, epochs=1, recipe=Recipe(), seed=0, report=print
    )
    assert figures["unseen_by_features"] is Recipe().unseen_by_features


def test_rankers_are_compared_on_the_same_candidates_with_their_cost(tmp_path):
    figures = bench_rankers(
        tiny_run(tmp_path),
        kinds=("lambdamart", "xgboost"),
        workers=1,
        most_users=11,
        report=print,
    )
    assert figures["users"] == 11
    assert list(figures["rankers"]) == ["tower", "lambdamart", "xgboost"]
    assert figures["rankers"]["tower"]["ndcg@10_gain"]["value"] == 0
    for kind in ("lambdamart", "xgboost"):
        assert {"auc", "log_loss", "fit_s", "ms_per_request"} < set(figures["rankers"][kind])


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["rankers", "RUN", "--kinds", "svm"], "--kinds 'svm' is unknown"),
        (["train", "--events", "many"], "--events 'many'"),
        (["losses", "nowhere"], "marquee prepare"),
        (["cold", "nowhere"], "marquee prepare"),
    ],
)
def test_a_mistake_is_one_line(arguments, reason):
    done = CliRunner().invoke(build_app(), ["bench", *arguments])
    assert isinstance(done.exception, UserError) and reason in str(done.exception)


def test_the_comparison_of_rankers_prints_one_document(tmp_path):
    run = tiny_run(tmp_path)
    command = ["bench", "rankers", str(run), "--kinds", "lambdamart"]
    document = json.loads(CliRunner().invoke(build_app(), [*command, "--json"]).stdout)
    assert document["candidates"] == 200 and document["split_hash"]
    table = CliRunner().invoke(build_app(), command).stdout
    assert "lambdamart" in table and "auc" in table
