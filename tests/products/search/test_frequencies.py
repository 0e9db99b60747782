"""Terms of a search: the rarest come first, and those as rare are looked up in the index."""

from catalog.products.search.frequencies import MAX_INDEXED, SIMILAR, Terms, unknown


def test_rarer_and_then_longer_terms_come_first() -> None:
    terms = Terms.ranked({"lamp": 0.5, "oak": 0.01, "ash": 0.5, "stool": 0.5})

    assert terms.ordered == ("oak", "stool", "lamp", "ash")
    assert terms.shares == (0.01, 0.5, 0.5, 0.5)


def test_terms_as_rare_as_the_rarest_are_looked_up() -> None:
    shares = {"a": 0.01, "b": 0.01 * SIMILAR, "c": 0.0101 * SIMILAR}

    assert Terms.ranked(shares).indexed == 2


def test_number_of_terms_that_are_looked_up_is_bounded() -> None:
    assert Terms.ranked({str(number): 0.1 for number in range(MAX_INDEXED + 1)}).indexed == (
        MAX_INDEXED
    )


def test_terms_of_unknown_frequencies_may_be_in_every_product() -> None:
    terms = unknown(["oak", "lamp"])

    assert (terms.ordered, terms.shares) == (("lamp", "oak"), (1.0, 1.0))
    assert terms.values == {"term_0": "lamp", "term_1": "oak"}


def test_each_term_is_sought_in_every_bucket() -> None:
    terms = unknown(["oak", "lamp", "ash"])

    assert terms.sought_in(["1", "2"], 2) == [["1lamp", "2lamp"], ["1ash", "2ash"]]
