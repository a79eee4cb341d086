"""The query that every request with a token asks gives what Django's own would."""

import threading
from typing import Any

import pytest
from django.db import connections
from django.db.models import Model

from accounts.built_once import TEXT, BuiltOnce
from accounts.models import ApiToken, User
from accounts.tokens import create_token, token_of_digest


def fields_of(row: Model) -> dict[str, Any]:
    return {field.attname: getattr(row, field.attname) for field in row._meta.concrete_fields}


def test_token_and_its_owner_are_as_django_reads_them(
    technologist: User, reader: User, django_assert_num_queries: Any
) -> None:
    create_token(user=technologist, name="one", scopes=["read"])
    create_token(user=reader, name="another", lifetime=None)

    for wanted in ApiToken.objects.select_related("user"):
        with django_assert_num_queries(1):
            found = token_of_digest.get(wanted.digest)
            assert found is not None
            assert fields_of(found.user) == fields_of(wanted.user)
        assert fields_of(found) == fields_of(wanted)
        assert found == wanted
        assert not found._state.adding


def test_what_is_not_there_is_none_and_a_text_is_never_sql(technologist: User) -> None:
    create_token(user=technologist)

    for text in ("", TEXT, "' OR 1=1 --", "%s"):
        assert token_of_digest.get(text) is None


@pytest.mark.django_db(transaction=True)
def test_each_thread_asks_over_its_own_connection(technologist: User) -> None:
    create_token(user=technologist)
    digest = ApiToken.objects.get().digest
    assert token_of_digest.get(digest)
    found: list[ApiToken | None] = []

    def ask() -> None:
        try:
            found.append(token_of_digest.get(digest))
        finally:
            connections.close_all()

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()

    assert [token and token.user for token in found] == [technologist]


def test_query_of_more_than_its_text_is_refused(technologist: User) -> None:
    query = User.objects.filter(email=TEXT, is_active=True, role="reader")

    with pytest.raises(ValueError, match="one parameter"):
        BuiltOnce(query).get("x")
