"""Which document is asked next."""

from collections import Counter

from promptopt.synthesis.balance import ROUND, Balance


def _run(balance: Balance, bad: tuple[str, ...] = ()) -> Counter[str]:
    asked: Counter[str] = Counter()
    while visits := balance.next_round():
        assert len(visits) <= ROUND
        for visit in visits:
            assert visit.number == asked[visit.document]
            asked[visit.document] += 1
            balance.note(visit, visit.document not in bad)
    return asked


def _balance(wanted: int, *, most_attempts: int = 1000, most_rows: int | None = None, n: int = 7) -> Balance:
    return Balance({f"d{i}": 5 for i in range(n)}, wanted, most_attempts, give_up_after=3, most_rows=most_rows, seed=4)


def test_documents_get_equally_many_rows_within_one() -> None:
    balance = _balance(100)
    _run(balance)
    assert sum(balance.rows_of.values()) == 100
    assert set(balance.rows_of.values()) == {14, 15}


def test_a_bad_document_is_given_up_and_the_others_fill_in() -> None:
    balance = _balance(60)
    asked = _run(balance, bad=("d2",))
    assert asked["d2"] == 3
    assert balance.given_up == ["d2"]
    assert {name: rows for name, rows in balance.rows_of.items() if name != "d2"} == dict.fromkeys(
        ("d0", "d1", "d3", "d4", "d5", "d6"), 10
    )


def test_it_ends_at_the_limits_of_attempts_and_of_rows_per_document() -> None:
    assert sum(_run(_balance(100, most_attempts=40)).values()) == 40
    capped = _balance(100, most_rows=2)
    _run(capped)
    assert set(capped.rows_of.values()) == {2}
    hopeless = _balance(10, n=2)
    assert sum(_run(hopeless, bad=("d0", "d1")).values()) == 6
    assert hopeless.accepted == 0


def test_a_round_visits_no_passage_twice() -> None:
    balance = Balance({"short": 1, "long": 3}, 100, 1000, give_up_after=9, most_rows=None, seed=0)
    first = balance.next_round()
    assert sorted((visit.document, visit.number) for visit in first) == [
        ("long", 0),
        ("long", 1),
        ("long", 2),
        ("short", 0),
    ]
