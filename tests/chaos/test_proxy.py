"""The proxy cuts a connection while it commits, and only then."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest

from asyncproc.clock import monotonic
from chaos.proxy import Cut, CutProxy


@pytest.fixture
def proxy(postgres: str) -> Iterator[CutProxy]:
    folder = parse_qs(urlsplit(postgres).query)["host"][0]
    proxy = CutProxy(Path(folder) / ".s.PGSQL.5432")
    proxy.start()
    yield proxy
    proxy.stop()


@pytest.fixture
def table(postgres: str) -> Iterator[None]:
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("CREATE TABLE cut (n integer)")
        yield
        connection.execute("DROP TABLE cut")


def _connect(proxy: CutProxy) -> psycopg.Connection:
    return psycopg.connect(f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres?sslmode=disable&gssencmode=disable")


def _rows(postgres: str) -> list[int]:
    with psycopg.connect(postgres) as connection:
        return [row[0] for row in connection.execute("SELECT n FROM cut").fetchall()]


def test_what_is_not_to_be_cut_is_passed_on(proxy: CutProxy, postgres: str, table: None) -> None:
    with _connect(proxy) as connection:
        connection.execute("INSERT INTO cut SELECT generate_series(1, 3)")

    assert _rows(postgres) == [1, 2, 3]


@pytest.mark.parametrize(("cut", "kept"), [(Cut.SWALLOW, [1]), (Cut.RESET, []), (Cut.HOLE, [])])
@pytest.mark.parametrize("prepared", [None, 0])
def test_a_commit_that_is_cut_fails_whether_it_was_carried_out_or_not(
    proxy: CutProxy, postgres: str, table: None, cut: Cut, kept: list[int], prepared: int | None
) -> None:
    connection = _connect(proxy)
    connection.prepare_threshold = prepared
    connection.execute("SELECT 1")
    connection.execute("INSERT INTO cut VALUES (1)")
    fired = proxy.cut_next(cut, hole_s=0.1)

    with pytest.raises(psycopg.OperationalError):
        connection.execute("COMMIT")

    connection.close()
    assert fired.result(0) is cut
    assert _rows(postgres) == kept


def test_only_one_commit_is_cut(proxy: CutProxy, postgres: str, table: None) -> None:
    fired = proxy.cut_next(Cut.RESET)
    with pytest.raises(psycopg.OperationalError), _connect(proxy) as connection:
        connection.execute("INSERT INTO cut VALUES (1)")
    with _connect(proxy) as connection:
        connection.execute("INSERT INTO cut VALUES (2)")

    assert fired.done()
    assert _rows(postgres) == [2]


def test_a_hole_says_nothing_for_its_time(proxy: CutProxy, table: None) -> None:
    connection = _connect(proxy)
    connection.execute("INSERT INTO cut VALUES (1)")
    proxy.cut_next(Cut.HOLE, hole_s=0.3)
    since = monotonic()

    with pytest.raises(psycopg.OperationalError):
        connection.commit()

    connection.close()
    assert monotonic() - since >= 0.3
