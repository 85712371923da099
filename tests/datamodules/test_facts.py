"""Counts of published datasets, and the paper's rule for the length of pre-training."""

import logging

import pytest

from lit_splitmask.commands import tables
from lit_splitmask.datamodules import Clipart, INaturalist2019, StanfordCars
from lit_splitmask.datamodules.facts import Facts, Release
from lit_splitmask.datamodules.paper import TABLE_3
from lit_splitmask.loading.budget import resolve


def test_other_releases_are_recognised_by_their_counts() -> None:
    assert "the counts of the cleaned lists" in str(Clipart.facts.explain_counts(33_525, 14_604, 345))
    assert "official JSON" in str(INaturalist2019.facts.explain_counts(265_213, 3_030, 1_010))
    assert "files are missing" in str(StanfordCars.facts.explain_counts(8_000, 8_041, 196))
    assert "found 195 classes, expected 196" in str(StanfordCars.facts.explain_counts(8_144, 8_041, 195))
    for facts in tables.published_sets().values():
        assert facts.explain_counts(facts.release.train, facts.release.test, facts.classes) is None


def test_the_rule_sees_as_many_images_as_300_passes_over_imagenet_and_caps_small_sets() -> None:
    large, small = (Facts("x", Release("x", n, 1), classes=2, where="", capped=True) for n in (128_117, 1_000))
    assert large.rule_passes == pytest.approx(3_000, rel=1e-4)
    assert small.rule_passes == 5_000
    assert Facts("x", Release("x", 1_000, 1), classes=2, where="").rule_passes == pytest.approx(384_350.1)


def test_the_rule_gives_table_3_within_the_papers_rounding() -> None:
    facts = {one.title: one for one in tables.published_sets().values() if one.title in TABLE_3}
    assert list(facts) == list(TABLE_3)
    off = {title: epochs / facts[title].rule_passes for title, epochs in TABLE_3.items()}
    rounded = {title for title, ratio in off.items() if abs(ratio - 1) > 1e-3}
    assert rounded == {"iNaturalist 2018", "iNaturalist 2019", "ADE20K", "COCO"}
    assert all(0.9 < ratio < 1.11 for ratio in off.values())


def test_table_1s_subsets_follow_from_the_rule(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    for images, passes in ((128_116, 3_000), (12_811, 30_000)):
        assert resolve(None, images, 2048, max_passes=float("inf")).passes == pytest.approx(passes, rel=1e-4)
