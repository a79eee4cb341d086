import numpy as np

from ml.gate import Gate, fit_bank, usual_limits


def cells(seed: int, count: int = 400) -> tuple[np.ndarray, list[str]]:
    """Features of two groups, each a cloud along 20 of 60 directions."""
    random = np.random.default_rng(seed)
    groups = random.integers(0, 2, count)
    inside = random.normal(0, 1, (count, 20)) + groups[:, None] * 6
    basis = np.linalg.qr(np.random.default_rng(0).normal(0, 1, (60, 60)))[0]
    features = np.hstack([inside, random.normal(0, 0.1, (count, 40))]) @ basis
    return features.astype(np.float32), [f"group {group}" for group in groups]


def test_familiar_cells_pass_and_others_do_not() -> None:
    features, groups = cells(1)
    bank = fit_bank(features, groups, directions=20)
    gate = Gate(bank, usual_limits(bank, cells(2)[0], ["one"] * 400, 0.99), far=2.0)
    assert (gate.scores(cells(3)[0]) <= 1).mean() > 0.97
    far_off = np.random.default_rng(4).normal(0, 3, (200, 60)).astype(np.float32)
    assert (gate.scores(far_off) > 1).all()


def test_a_point_between_two_groups_is_unfamiliar() -> None:
    features, groups = cells(1)
    bank = fit_bank(features, groups, directions=20)
    gate = Gate(bank, usual_limits(bank, cells(2)[0], ["one"] * 400, 0.99), far=2.0)
    between = features[[group == "group 0" for group in groups]].mean(axis=0) / 2
    between += features[[group == "group 1" for group in groups]].mean(axis=0) / 2
    assert gate.scores(between[None])[0] > 1


def test_every_source_keeps_its_share() -> None:
    features, groups = cells(1)
    bank = fit_bank(features, groups, directions=20)
    wide = np.concatenate([cells(2)[0], cells(3)[0] * 1.3])
    sources = ["narrow"] * 400 + ["wide"] * 400
    gate = Gate(bank, usual_limits(bank, wide, sources, 0.99), far=2.0)
    accepted = gate.scores(wide) <= 1
    assert accepted[:400].mean() >= 0.985
    assert accepted[400:].mean() >= 0.985
