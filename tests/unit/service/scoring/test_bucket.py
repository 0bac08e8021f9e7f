"""A quota's bucket: to ask for the delay changes nothing, to take does."""

import pytest

from sealserve_service.scoring.bucket import Bucket


def test_the_delay_is_asked_for_without_effect() -> None:
    bucket = Bucket(capacity=60.0, level=60.0, filled=0.0)
    for _ in range(3):
        assert bucket.delay(60, 0.0) == 0.0
        assert bucket.level_at(0.0) == 60.0
    bucket.take(50, 0.0)
    assert [bucket.delay(20, now) for now in (0.0, 9.5, 10.0, 100.0)] == pytest.approx([10.0, 0.5, 0.0, 0.0])
    assert bucket.level_at(5.0) == pytest.approx(15.0)
    assert bucket.level_at(1e6) == 60.0


def test_more_than_a_full_bucket_is_taken_from_a_full_one() -> None:
    bucket = Bucket(capacity=60.0, level=60.0, filled=0.0)
    assert bucket.delay(600, 0.0) == 0.0
    bucket.take(600, 0.0)
    assert bucket.level_at(0.0) == -540.0
    assert bucket.delay(1, 0.0) == pytest.approx(541.0)


def test_what_is_owed_is_at_most_a_minutes_worth() -> None:
    bucket = Bucket(capacity=60.0, level=1.0, filled=0.0)
    bucket.owe(2, 0.0)
    assert bucket.level_at(0.0) == -1.0
    assert bucket.delay(0, 0.0) == pytest.approx(1.0)
    bucket.owe(1000, 0.0)
    assert bucket.delay(0, 0.0) == pytest.approx(60.0)
    assert bucket.delay(0, 60.0) == 0.0
