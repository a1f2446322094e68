"""Who is let in when many want to be."""

from __future__ import annotations

from edge.security.admission import Admission


def test_one_address_that_never_says_connect_does_not_shut_out_the_others() -> None:
    admission = Admission(connections_max=100, per_ip_max=100, unauthenticated_max=10, unauthenticated_per_ip_max=5)
    assert [bool(admission.enter("silent")) for _ in range(7)] == [False] * 5 + [True] * 2
    assert admission.enter("other") == ""


def test_connect_and_leaving_give_the_place_of_an_address_back() -> None:
    admission = Admission(connections_max=100, per_ip_max=100, unauthenticated_max=10, unauthenticated_per_ip_max=1)
    assert admission.enter("a") == ""
    admission.let_in("a")
    assert admission.enter("a") == ""
    admission.leave("a", authenticated=False)
    assert admission.enter("a") == ""
    admission.leave("a", authenticated=False)
    admission.leave("a", authenticated=True)
    assert (admission.connections, admission.unauthenticated) == (0, 0)
