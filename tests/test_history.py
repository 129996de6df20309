from __future__ import annotations

from topgraft.history import Epoch, History


def test_a_history_comes_back_from_json():
    history = History(
        epochs=[Epoch(0, 1.0, 0.5, 0.25, 0.0, 0.1), Epoch(1, 0.5, 0.4, 0.5, 0.1, 0.2)],
        best=1,
        steps_an_epoch=3,
        trained=17,
        stopped="so",
        marks=[1.0, 0.0],
    )
    assert History.from_json(history.to_json()) == history
