"""The column packing: a feature a polynomial, a row a coefficient, whatever the shapes."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sealserve.he.layouts.column import ColumnPacking

packings = st.builds(ColumnPacking, st.sampled_from([1, 2, 16, 64]), st.integers(1, 40), st.integers(1, 12))


@settings(deadline=None, max_examples=200)
@given(packings, st.data())
def test_sums_of_products_hold_the_scores(packing: ColumnPacking, data: st.DataObject) -> None:
    row_count = data.draw(st.integers(1, packing.rows), "rows")
    generator = np.random.default_rng(data.draw(st.integers(0, 99), "seed"))
    rows = generator.integers(0, 1000, (row_count, packing.feature_count))
    weights = generator.integers(-1000, 1000, (packing.score_count, packing.feature_count))
    plaintexts = np.array(list(packing.pack_rows(rows)))
    assert plaintexts.shape == (packing.ciphertexts, packing.poly_modulus_degree)
    scores = weights @ plaintexts.astype(np.int64)
    for polynomial in range(packing.polynomials):
        classes = packing.classes_in(polynomial)
        places = packing.places(row_count, len(classes))
        found = scores[classes.start, places]
        np.testing.assert_array_equal(found, rows @ weights[classes.start : classes.stop].T)


@settings(deadline=None, max_examples=100)
@given(packings)
def test_counts_and_places(packing: ColumnPacking) -> None:
    assert packing.rows == packing.poly_modulus_degree
    assert packing.ciphertexts == packing.feature_count
    assert packing.polynomials == packing.score_count
    assert packing.classes == 1
    assert [score for p in range(packing.polynomials) for score in packing.classes_in(p)] == list(
        range(packing.score_count)
    )
    for row_count in (1, packing.rows):
        places = packing.places(row_count, 1)
        assert places.shape == (row_count, 1)
        assert places.ravel().tolist() == list(range(row_count))


@settings(deadline=None, max_examples=100)
@given(packings, st.data())
def test_rows_that_are_not_there_are_zeros(packing: ColumnPacking, data: st.DataObject) -> None:
    row_count = data.draw(st.integers(1, packing.rows), "rows")
    rows = 1 + np.arange(row_count * packing.feature_count).reshape(row_count, -1)
    for feature, plaintext in enumerate(packing.pack_rows(rows)):
        assert plaintext[:row_count].tolist() == rows[:, feature].tolist()
        assert not plaintext[row_count:].any()


def test_rows_of_any_memory_order_are_packed_alike() -> None:
    packing = ColumnPacking(8, 3, 1)
    strided = np.arange(60).reshape(10, 6)[::2, ::-2]
    expected = [[*strided[:, feature].tolist(), 0, 0, 0] for feature in range(3)]
    for rows in (strided, np.ascontiguousarray(strided), np.asfortranarray(strided)):
        plaintexts = list(packing.pack_rows(rows))
        assert [plaintext.tolist() for plaintext in plaintexts] == expected
        for plaintext in plaintexts:
            assert plaintext.dtype == np.uint64
            assert plaintext.flags.c_contiguous, "SEAL's binding ignores strides"


def test_plaintexts_are_made_as_they_are_taken() -> None:
    """A batch is longer than what is in memory at a time; those taken before stay as they are."""
    plaintexts = ColumnPacking(4, 3, 1).pack_rows(np.array([[1, 2, 3], [4, 5, 6]]))
    assert iter(plaintexts) is plaintexts
    first = next(plaintexts)
    assert next(plaintexts).tolist() == [2, 5, 0, 0]
    assert first.tolist() == [1, 4, 0, 0]
    assert [plaintext.tolist() for plaintext in plaintexts] == [[3, 6, 0, 0]]


def test_an_example() -> None:
    """N = 4, two features, three classes; two rows."""
    packing = ColumnPacking(4, 2, 3)
    assert (packing.rows, packing.ciphertexts, packing.polynomials, packing.classes) == (4, 2, 3, 1)
    assert [plaintext.tolist() for plaintext in packing.pack_rows(np.array([[1, 2], [3, 4]]))] == [
        [1, 3, 0, 0],
        [2, 4, 0, 0],
    ]
    assert packing.places(2, 1).tolist() == [[0], [1]]
    assert [packing.classes_in(polynomial) for polynomial in range(3)] == [range(1), range(1, 2), range(2, 3)]
