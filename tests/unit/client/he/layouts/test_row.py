"""The row packing: products of polynomials hold the scores where it says, whatever the shapes."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sealserve.he.layouts.row import RowPacking
from tests.support.affine_models import Integers


@st.composite
def packings(draw: st.DrawFn) -> RowPacking:
    """Packings into small polynomials of any degree, with rows of up to three blocks."""
    N = draw(st.integers(1, 40))
    features = draw(st.integers(1, 3 * N) | st.integers(1, max(1, N // 4)))
    return RowPacking(N, features, draw(st.integers(1, 12)), draw(st.integers(1, max(1, N // features))))


def negacyclic(a: NDArray[np.int64], b: NDArray[np.int64]) -> Integers:
    """Multiply polynomials (N,) modulo X^N + 1, by the definition."""
    product = np.convolve(a.astype(object), b.astype(object))
    product = np.append(product, np.zeros(2 * len(a) - len(product), object))
    wrapped: Integers = product[: len(a)] - product[len(a) :]
    return wrapped


@settings(deadline=None, max_examples=200)
@given(packings(), st.data())
def test_products_hold_the_scores(packing: RowPacking, data: st.DataObject) -> None:
    row_count = data.draw(st.integers(1, packing.rows), "rows")
    generator = np.random.default_rng(data.draw(st.integers(0, 99), "seed"))
    rows = generator.integers(0, 1000, (row_count, packing.feature_count))
    weights = generator.integers(-1000, 1000, (packing.score_count, packing.feature_count))
    ciphertexts, polynomials = packing.pack_rows(rows), packing.pack_weights(weights)
    assert ciphertexts.shape == (packing.ciphertexts, packing.poly_modulus_degree)
    assert polynomials.shape == (packing.polynomials, *ciphertexts.shape)
    for polynomial, blocks in enumerate(polynomials):
        product = sum(negacyclic(x.astype(np.int64), w) for x, w in zip(ciphertexts, blocks, strict=True))
        classes = packing.classes_in(polynomial)
        scores = np.take(product, packing.places(row_count, len(classes)))
        np.testing.assert_array_equal(scores, rows @ weights[classes.start : classes.stop].T)


@settings(deadline=None, max_examples=200)
@given(packings())
def test_counts_and_places(packing: RowPacking) -> None:
    N = packing.poly_modulus_degree
    assert packing.window == min(packing.feature_count, N)
    assert packing.rows * packing.classes * packing.window <= N
    assert (packing.rows + 1) * packing.classes * packing.window > N, "a row more would fit"
    assert (packing.ciphertexts - 1) * N < packing.feature_count <= packing.ciphertexts * N
    assert [score for p in range(packing.polynomials) for score in packing.classes_in(p)] == list(
        range(packing.score_count)
    )
    assert all(len(packing.classes_in(p)) == packing.classes for p in range(packing.polynomials - 1))
    places = packing.places(packing.rows, packing.classes).ravel()
    assert (np.diff(places) > 0).all()
    assert 0 <= places.min() <= places.max() < N
    assert packing.places(1, 1).tolist() == [[packing.window - 1]]


@settings(deadline=None, max_examples=100)
@given(packings())
def test_everything_is_packed_once_and_nothing_else(packing: RowPacking) -> None:
    rows = 1 + np.arange(packing.rows * packing.feature_count).reshape(packing.rows, -1)
    packed = packing.pack_rows(rows)
    assert sorted(packed[packed > 0].tolist()) == rows.ravel().tolist()
    one = packing.pack_rows(rows[:1])
    assert sorted(one[one > 0].tolist()) == rows[0].tolist(), "rows that are not there are zeros"
    weights = -1 - np.arange(packing.score_count * packing.feature_count).reshape(packing.score_count, -1)
    packed_weights = packing.pack_weights(weights)
    assert sorted(packed_weights[packed_weights != 0].tolist()) == sorted(weights.ravel().tolist())


def test_an_example() -> None:
    """N = 16, two features, three classes: two classes a product, two coefficients a window."""
    packing = RowPacking(16, 2, 3, 2)
    assert (packing.rows, packing.ciphertexts, packing.polynomials) == (4, 1, 2)
    assert packing.pack_rows(np.array([[1, 2], [3, 4]])).tolist() == [[1, 2, 0, 0, 3, 4, *[0] * 10]]
    assert packing.pack_weights(np.array([[1, -2], [3, -4], [5, -6]])).tolist() == [
        [[-2, 1, -4, 3, *[0] * 12]],
        [[-6, 5, *[0] * 14]],
    ]
    assert packing.places(2, 2).tolist() == [[1, 3], [5, 7]]
    assert packing.places(2, 1).tolist() == [[1], [5]]
    assert [packing.classes_in(polynomial) for polynomial in range(2)] == [range(2), range(2, 3)]


@settings(deadline=None, max_examples=100)
@given(packings(), st.data())
def test_fewer_rows_than_fit_lie_where_they_would_lie_among_more(packing: RowPacking, data: st.DataObject) -> None:
    most = data.draw(st.integers(1, packing.rows + 2), "most")
    bounded = dataclasses.replace(packing, max_rows=most)
    count = bounded.rows
    assert count == min(most, packing.rows)
    rows = 1 + np.arange(count * packing.feature_count).reshape(count, -1)
    np.testing.assert_array_equal(bounded.pack_rows(rows), packing.pack_rows(rows))
    np.testing.assert_array_equal(bounded.places(count, packing.classes), packing.places(count, packing.classes))
    with pytest.raises(ValueError, match="shape"):
        bounded.pack_rows(np.ones((count + 1, packing.feature_count), np.int64))


def test_an_item_holds_at_least_one_row() -> None:
    with pytest.raises(ValueError, match=r"^an item holds at least 1 row, not 0$"):
        RowPacking(16, 2, 3, 2, max_rows=0)


@pytest.mark.parametrize(("features", "classes"), [(5, 0), (5, -1), (5, 4), (16, 2), (17, 2), (9, 2)])
def test_windows_that_do_not_fit(features: int, classes: int) -> None:
    with pytest.raises(ValueError, match=f"^{classes} windows of {min(features, 16)} do not fit into 16$"):
        RowPacking(16, features, 3, classes)
