"""Where a message may go: a URL that is judged when it is entered, and an address that is judged when it is used.

A name is resolved once, and the socket is connected to the very address that was judged, so a name that changes its
mind in between leads nowhere else. Nothing here heeds proxies from the environment.
"""

import ipaddress
import re
import socket
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as ResolverTimeout
from dataclasses import dataclass
from urllib.parse import urlsplit

from django.conf import settings

from classifier.errors import InvalidInput

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LONGEST_URL = 500
PORTS = {"https": 443, "http": 80}
LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
# Every network that is not the public internet, said here rather than asked of a library, whose answer has changed
# between versions. An IPv6 address that carries an IPv4 one is refused whatever it carries.
REFUSED: tuple[Network, ...] = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",  # a cloud's own services, on an address that looks public
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
# Of IPv6 only what is handed out to the public, and of that not the tunnels, tests and examples.
PUBLIC_IPV6 = ipaddress.IPv6Network("2000::/3")
REFUSED_IPV6 = tuple(
    ipaddress.IPv6Network(network)
    for network in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)
# The system's resolver knows no deadline, so each name is asked for in a thread of its own that may be left behind. A
# name that hangs has one such thread, however often it is asked for, so it delays no other name.
MOST_LOOKUPS = 64
lookups: dict[tuple[str, int], "Future[list[str]]"] = {}
lookups_lock = threading.Lock()


@dataclass(frozen=True)
class Target:
    """A URL taken apart: `host` is ASCII and lower-case, `path` has the query with it."""

    scheme: str
    host: str
    port: int
    path: str


class AddressRefused(Exception):
    """Nothing is sent there. `code` is `name_not_found` or `address_refused`."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def target_of(url: str) -> Target:
    """The parts of a URL that messages may be sent to. Raises InvalidInput: url_* codes, each with its sentence."""
    if not url:
        raise InvalidInput("url_missing", "Enter the address that messages are sent to.")
    if len(url) > LONGEST_URL:
        raise InvalidInput("url_too_long", f"The address has at most {LONGEST_URL} characters.")
    if not url.isascii() or not url.isprintable() or re.search(r'[\s\\<>"]', url):
        message = "The address holds spaces or signs that a URL can't hold. Percent-encode them; a name by punycode."
        raise InvalidInput("url_malformed", message)
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").removesuffix("."), parts.port
    except ValueError:
        raise InvalidInput("url_malformed", "This is no URL. It looks like https://lis.example.org/hooks.") from None
    if parts.scheme not in PORTS:
        raise InvalidInput("url_scheme", "The address begins with https://.")
    if "@" in parts.netloc:
        message = "The address holds a user or a password. Leave them out: every message is signed."
        raise InvalidInput("url_credentials", message)
    if parts.fragment or url.endswith("#"):
        raise InvalidInput("url_fragment", "Leave out what follows the #: it would never be sent.")
    if port == 0:
        raise InvalidInput("url_port", "A port is a number from 1 to 65535.")
    if parts.scheme == "http" and not http_is_allowed():
        raise InvalidInput("url_scheme", "Messages go over https only. Enter an address that begins with https://.")
    require_host(host, parts.scheme)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme, host, port or PORTS[parts.scheme], path)


def http_is_allowed() -> bool:
    """Plain HTTP: never with PRODUCTION=1, else only to the networks that the environment allows by name."""
    return not settings.PRODUCTION and bool(settings.WEBHOOK_ALLOWED_NETWORKS)


def require_host(host: str, scheme: str) -> None:
    """Raises InvalidInput for what is no host, and for an address that is refused at once."""
    address = as_address(host)
    if address is not None:
        if not is_allowed(address, scheme):
            message = "Messages don't go to private or reserved addresses. Your operator can allow a network."
            raise InvalidInput("url_address_refused", message)
        return
    labels = host.split(".")
    # A last label of digits is an address in one of its odd spellings, which resolvers read in their own ways.
    odd_address = re.fullmatch(r"[0-9]+|0x[0-9a-f]*", labels[-1]) is not None
    if len(host) > 253 or odd_address or not all(LABEL.fullmatch(label) for label in labels):
        raise InvalidInput("url_host", "The address names no host. It looks like https://lis.example.org/hooks.")


def as_address(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def is_allowed(address: Address, scheme: str) -> bool:
    """Whether a message may go to the address: by https to a public one, else where WEBHOOK_ALLOWED_NETWORKS says."""
    if any(address in network for network in settings.WEBHOOK_ALLOWED_NETWORKS):
        return True
    if scheme != "https":
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in REFUSED)
    return address in PUBLIC_IPV6 and not any(address in network for network in REFUSED_IPV6)


def resolve(host: str, port: int) -> list[str]:
    """Ask the system's resolver: the addresses of the host, in its order. Raises OSError, or UnicodeError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def lookup(host: str, port: int) -> "Future[list[str]]":
    """The answer of the resolver, under way. Raises TimeoutError where far too many names hang already."""
    place = (host, port)
    with lookups_lock:
        if known := lookups.get(place):
            return known
        if len(lookups) >= MOST_LOOKUPS:
            raise TimeoutError
        answer: Future[list[str]] = Future()
        lookups[place] = answer
    threading.Thread(target=look_up, args=(place, answer), name="resolver", daemon=True).start()
    return answer


def look_up(place: tuple[str, int], answer: "Future[list[str]]") -> None:
    found: list[str] = []
    failure: Exception | None = None
    try:
        found = resolve(*place)
    except (OSError, UnicodeError) as error:
        failure = error
    finally:
        # Whoever asks from now on asks anew.
        with lookups_lock:
            del lookups[place]
    if failure is None:
        answer.set_result(found)
    else:
        answer.set_exception(failure)


def addresses_of(target: Target, seconds: float) -> list[Address]:
    """The addresses that may be connected to. Raises AddressRefused, TimeoutError."""
    try:
        names = lookup(target.host, target.port).result(timeout=seconds)
    except ResolverTimeout:
        raise TimeoutError from None
    except (OSError, UnicodeError):
        raise AddressRefused("name_not_found") from None
    found = [address for name in names if (address := as_address(name)) is not None]
    usable = [address for address in found if is_allowed(address, target.scheme)]
    if not usable:
        raise AddressRefused("address_refused" if found else "name_not_found")
    return usable


def connect(address: Address, port: int, seconds: float) -> socket.socket:
    """A TCP connection to exactly this address. Raises OSError, TimeoutError."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.settimeout(seconds)
        connection.connect((str(address), port))
    except OSError:
        connection.close()
        raise
    return connection
