"""Link headers as servers write them."""

import pytest

from certs.acme.links import link, links
from certs.transport import HttpResponse


@pytest.mark.parametrize(
    ("header", "target"),
    [
        ('<https://h/2>;rel="next"', "https://h/2"),
        ("<https://h/2>; rel=next", "https://h/2"),
        ('<https://h/d>;rel="index", <https://h/2>;rel="next"', "https://h/2"),
        ('<https://h/?a=1,2;b>; title="a, b; c"; REL="prev next"', "https://h/?a=1,2;b"),
        ('<https://h/d>;rel="index"', None),
        ('<https://h/d>;rel="nextish"', None),
        ("<https://h/d>", None),
        ("https://h/d; rel=next", None),
        ("", None),
        (None, None),
    ],
)
def test_the_target_of_a_relation(header: str | None, target: str | None) -> None:
    headers = {} if header is None else {"link": header}
    assert link(HttpResponse(status=200, body=b"", headers=headers), "next") == target


def test_every_target_of_a_relation_in_order() -> None:
    header = '<a>;rel="alternate", <d>;rel="index", <b>;rel="alternate"'
    response = HttpResponse(status=200, body=b"", headers={"link": header})
    assert links(response, "alternate") == ["a", "b"]


def test_a_hostile_header_takes_no_time() -> None:
    response = HttpResponse(status=200, body=b"", headers={"link": "<a>" + "; " * 20_000})
    assert link(response, "next") is None
