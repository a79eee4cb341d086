"""Where messages may go: what is refused when it is entered, and what is refused when its name is resolved."""

import ipaddress
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier import safe_address
from classifier.errors import InvalidInput
from classifier.safe_address import AddressRefused, Target, addresses_of, connect, is_allowed, target_of

ROOT = Path(__file__).resolve().parent.parent
LOOPBACK = ipaddress.ip_network("127.0.0.0/8")

REFUSED = [
    "0.0.0.0",
    "0.1.2.3",
    "10.1.2.3",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.1.1",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.7",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::ffff:0:8.8.8.8",
    "64:ff9b::7f00:1",
    "64:ff9b::8.8.8.8",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]
PUBLIC = ["1.1.1.1", "8.8.8.8", "100.63.255.255", "172.32.0.1", "192.0.1.1", "2606:4700::1111", "2a00:1450:4001::200e"]


@pytest.mark.parametrize("address", REFUSED)
def test_address_that_is_not_public_is_refused(address: str) -> None:
    assert not is_allowed(ipaddress.ip_address(address), "https")


@pytest.mark.parametrize("address", PUBLIC)
def test_public_address_is_allowed_by_https_alone(address: str) -> None:
    assert is_allowed(ipaddress.ip_address(address), "https")
    assert not is_allowed(ipaddress.ip_address(address), "http")


@given(st.ip_addresses())
def test_what_the_library_calls_private_is_never_allowed(address: Any) -> None:
    known = address.is_private or address.is_loopback or address.is_link_local or address.is_multicast
    if known or address.is_reserved or address.is_unspecified:
        assert not is_allowed(address, "https")


def test_network_of_the_environment_is_allowed_and_no_other(settings: Any) -> None:
    settings.WEBHOOK_ALLOWED_NETWORKS = [ipaddress.ip_network("10.9.0.0/16"), ipaddress.ip_network("fd00:9::/64")]
    assert is_allowed(ipaddress.ip_address("10.9.1.2"), "https")
    assert is_allowed(ipaddress.ip_address("10.9.1.2"), "http")
    assert is_allowed(ipaddress.ip_address("fd00:9::1"), "https")
    assert not is_allowed(ipaddress.ip_address("10.8.1.2"), "https")
    assert not is_allowed(ipaddress.ip_address("::ffff:10.9.1.2"), "https")


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://lis.example.org", Target("https", "lis.example.org", 443, "/")),
        ("https://LIS.Example.org./a/b?c=d%20e", Target("https", "lis.example.org", 443, "/a/b?c=d%20e")),
        ("https://lis.example.org:8443/x", Target("https", "lis.example.org", 8443, "/x")),
        ("https://xn--bcher-kva.example/", Target("https", "xn--bcher-kva.example", 443, "/")),
        ("https://8.8.8.8/", Target("https", "8.8.8.8", 443, "/")),
        ("https://[2606:4700::1111]:444/", Target("https", "2606:4700::1111", 444, "/")),
        ("https://a_b.example/", Target("https", "a_b.example", 443, "/")),
    ],
)
def test_good_address_is_taken_apart(url: str, target: Target) -> None:
    assert target_of(url) == target


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("", "url_missing"),
        ("https://x.example/" + "a" * 500, "url_too_long"),
        ("lis.example.org/hooks", "url_scheme"),
        ("http://lis.example.org/", "url_scheme"),
        ("ftp://lis.example.org/", "url_scheme"),
        ("file:///etc/passwd", "url_scheme"),
        ("gopher://lis.example.org/", "url_scheme"),
        ("https:lis.example.org", "url_host"),
        ("https:///path", "url_host"),
        ("https://user@lis.example.org/", "url_credentials"),
        ("https://user:pass@lis.example.org/", "url_credentials"),
        ("https://lis.example.org/#part", "url_fragment"),
        ("https://lis.example.org/#", "url_fragment"),
        ("https://lis.example.org:0/", "url_port"),
        ("https://lis.example.org:65536/", "url_malformed"),
        ("https://lis.example.org:99999999999/", "url_malformed"),
        ("https://lis.example.org:-1/", "url_malformed"),
        ("https://lis.example.org:port/", "url_malformed"),
        ("https://[::1/", "url_malformed"),
        ("https://lis example.org/", "url_malformed"),
        ("https://lis.example.org/a b", "url_malformed"),
        ("https://lis.example.org/\r\nHost: other", "url_malformed"),
        ("https://lis.example.org/\x00", "url_malformed"),
        ("https://lis.example.org\\@other.example/", "url_malformed"),
        ("https://bücher.example/", "url_malformed"),
        ("https://127.0.0.1/", "url_address_refused"),
        ("https://[::1]/", "url_address_refused"),
        ("https://[::ffff:127.0.0.1]/", "url_address_refused"),
        ("https://[fe80::1%25eth0]/", "url_address_refused"),
        ("https://169.254.169.254/latest/meta-data/", "url_address_refused"),
        ("https://2130706433/", "url_host"),
        ("https://0x7f.1/", "url_host"),
        ("https://127.1/", "url_host"),
        ("https://0177.0.0.1/", "url_host"),
        ("https://a.0x7f000001/", "url_host"),
        ("https://-a.example/", "url_host"),
        ("https://a..b/", "url_host"),
        ("https://a%2eb/", "url_host"),
        ("https://" + "a" * 64 + ".example/", "url_host"),
        ("https://" + "a." * 130 + "example/", "url_host"),
    ],
)
def test_bad_address_is_refused_with_its_reason(url: str, code: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        target_of(url)
    assert caught.value.code == code
    assert caught.value.message.endswith(".")


@given(st.text(max_size=60))
def test_whatever_is_typed_is_an_address_or_a_clear_refusal(text: str) -> None:
    for url in (text, f"https://{text}", f"https://lis.example.org{text}"):
        outcome = taken_apart(url)
        if isinstance(outcome, Target):
            assert outcome.scheme == "https"
            assert outcome.path.isascii()
            assert " " not in outcome.path
        else:
            assert outcome.startswith("url_")


def taken_apart(url: str) -> Target | str:
    try:
        return target_of(url)
    except InvalidInput as error:
        return error.code


def test_plain_http_goes_only_where_the_environment_says_and_never_in_production(settings: Any) -> None:
    settings.WEBHOOK_ALLOWED_NETWORKS = [LOOPBACK]
    assert target_of("http://127.0.0.1:8080/") == Target("http", "127.0.0.1", 8080, "/")
    with pytest.raises(InvalidInput, match="url_address_refused"):
        target_of("http://8.8.8.8/")
    settings.PRODUCTION = True
    with pytest.raises(InvalidInput, match="url_scheme"):
        target_of("http://127.0.0.1:8080/")
    assert target_of("https://127.0.0.1:8080/").port == 8080


def resolved_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    monkeypatch.setattr(safe_address, "resolve", lambda host, port: list(addresses))


def found(host: str = "lis.example.org", scheme: str = "https") -> list[str]:
    return [str(address) for address in addresses_of(Target(scheme, host, 443, "/"), 5)]


def test_only_the_public_ones_of_a_names_addresses_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    resolved_to(monkeypatch, "10.0.0.1", "8.8.8.8", "::1", "2606:4700::1111")
    assert found() == ["8.8.8.8", "2606:4700::1111"]


@pytest.mark.parametrize("addresses", [("127.0.0.1",), ("10.0.0.1", "fe80::1%eth0"), ("64:ff9b::7f00:1",)])
def test_name_that_leads_inside_is_refused(monkeypatch: pytest.MonkeyPatch, addresses: tuple[str, ...]) -> None:
    resolved_to(monkeypatch, *addresses)
    with pytest.raises(AddressRefused) as caught:
        found()
    assert caught.value.code == "address_refused"


def test_name_that_leads_outside_is_refused_over_plain_http(monkeypatch: pytest.MonkeyPatch) -> None:
    resolved_to(monkeypatch, "8.8.8.8")
    with pytest.raises(AddressRefused, match="address_refused"):
        found(scheme="http")


@pytest.mark.parametrize(
    "error", [socket.gaierror(-2, "unknown"), UnicodeError("label too long"), OSError("no network")]
)
def test_name_that_nobody_knows_is_said_to_be_unknown(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fails(host: str, port: int) -> list[str]:
        raise error

    monkeypatch.setattr(safe_address, "resolve", fails)
    with pytest.raises(AddressRefused, match="name_not_found"):
        found()


def test_resolver_that_hangs_costs_no_more_than_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    hang = threading.Event()
    monkeypatch.setattr(safe_address, "resolve", lambda host, port: hang.wait(10) or [])
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        addresses_of(Target("https", "lis.example.org", 443, "/"), 0.2)
    hang.set()
    assert time.monotonic() - began < 2


def test_systems_resolver_knows_this_machine() -> None:
    assert "127.0.0.1" in safe_address.resolve("localhost", 443)


def test_connection_goes_to_the_address_that_was_judged() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with connect(ipaddress.ip_address("127.0.0.1"), port, 5) as connection:
            assert connection.getpeername() == ("127.0.0.1", port)


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("WEBHOOK_ALLOWED_NETWORKS", "10.0.0.1/8", "holds what is no network: 10.0.0.1/8"),
        ("WEBHOOK_ALLOWED_NETWORKS", "10.0.0.0/8,lis.example.org", "holds what is no network: 'lis.example.org'"),
        ("WEBHOOK_CA_FILE", "no-such-file.pem", "names a file that cannot be read: no-such-file.pem"),
    ],
)
def test_variable_that_can_not_be_used_stops_the_start_with_a_sentence(variable: str, value: str, says: str) -> None:
    environment = {**os.environ, variable: value}
    command = [sys.executable, "-c", "import hematovision.settings"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"{variable} {says}" in done.stderr.splitlines()[-1]
