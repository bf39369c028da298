"""The place where the page listens, the names that it answers to, and the token that others than this machine need."""

from __future__ import annotations

import errno
import ipaddress
import secrets
import socket
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

LOOPBACK = "127.0.0.1"
DEFAULT_PORT = 8017
# A made token has 192 random bits. A given one is refused where it could be guessed by trying.
_MADE_BYTES = 24
_SHORTEST = 12
_TOKEN_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~")
# A client that reads slowly gets the pictures that this much of the system's memory holds, and then newer ones.
_SEND_BUFFER = 128 * 1024


@dataclass(frozen=True)
class Address:
    """The place that the page is bound to, and who may call it.

    Attributes:
        host: The name or the number of the network interface, as given.
        port: The port that is bound.
        token: What every request has to bring along, or None on this machine alone.
        made: Whether the token was made here, so that somebody has to be told.
    """

    host: str
    port: int
    token: str | None = field(repr=False)
    made: bool = False

    @property
    def url(self) -> str:
        """The address to open in a browser, without the token."""
        name = _own_number() if _is_wildcard(self.host) else self.host
        return f"http://{f'[{name}]' if ':' in name else name}:{self.port}/"

    @property
    def url_with_token(self) -> str:
        """The address that opens the page at once; it is a secret where there is a token."""
        return self.url if self.token is None else f"{self.url}?token={quote(self.token)}"

    @property
    def announcement(self) -> str:
        """The lines for the terminal: where the page is, and who can see it. They hold a token that was made here."""
        if self.token is None:
            return f"The page is at {self.url}"
        where = self.url_with_token if self.made else f"{self.url}, to be opened with ?token= and the given token"
        lines = [f"The page is at {where}"]
        if not is_loopback(self.host):
            lines.append(
                "Whoever has this address sees the page. It is sent without encryption: use it in networks that you "
                "trust, or leave out --host and reach it by an SSH tunnel."
            )
        return "\n".join(lines)

    @property
    def cookie(self) -> str:
        """The name of the cookie; browsers send the cookies of one machine to all of its ports."""
        return f"hstl_fast_{self.port}"

    def is_token(self, given: str) -> bool:
        """Compare a token in a time that does not depend on where it differs.

        Args:
            given: The token of a request.

        Returns:
            Whether it is the token.
        """
        return self.token is not None and secrets.compare_digest(given.encode(), self.token.encode())

    def is_own_name(self, header: str) -> bool:
        """Judge a request's `Host`: a page elsewhere whose name was bound to this machine's number sends its own.

        Any port will do, because a tunnel may have another one at its end, and no page can choose what is sent.

        Args:
            header: The header `Host`.

        Returns:
            Whether this is a name of what is bound.
        """
        try:
            parts = urlsplit(f"//{header}")
            name, _ = parts.hostname, parts.port
        except ValueError:
            return False
        if name is None or parts.netloc != header or parts.username is not None:
            return False
        number = _number(name)
        if is_loopback(self.host):
            return name == "localhost" or (number is not None and number.is_loopback)
        if _is_wildcard(self.host):
            # Nobody can bind a number to another machine, as he can a name.
            own = {"localhost", socket.gethostname().lower(), f"{socket.gethostname().lower()}.local"}
            return number is not None or name in own
        return name == self.host.lower() or (number is not None and number == _number(self.host))


def check_token(host: str, token: str | None) -> tuple[str | None, bool]:
    """Decide which token the page asks for.

    Args:
        host: What the page is to be bound to.
        token: The token that was given, or None.

    Returns:
        The token, None where none is needed: on this machine alone; and whether it was made here.

    Raises:
        ValueError: The token is too short, or has letters that an address cannot hold.
    """
    if token is None:
        return (None, False) if is_loopback(host) else (secrets.token_urlsafe(_MADE_BYTES), True)
    if len(token) < _SHORTEST or not _TOKEN_LETTERS.issuperset(token):
        raise ValueError(
            f"token must be {_SHORTEST} or more of the letters A-Z, a-z, 0-9, '-', '_', '.' and '~', "
            f"got {len(token)} characters"
        )
    return token, False


def bind(host: str, port: int) -> socket.socket:
    """Open the socket that the page listens at.

    Args:
        host: The name or the number of a network interface of this machine.
        port: The port; 0 takes any that is free.

    Returns:
        The bound socket.

    Raises:
        ValueError: The port is none.
        OSError: The host is unknown, or the port is taken or not allowed.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"port must be between 0 and 65535, got {port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host or "0.0.0.0", port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError) as error:
        raise OSError(f"host must be a name or a number of this machine, got {host!r}: {error}") from error
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        listening.bind(address)
        # Two sockets of this kind may be bound to one port until one of them listens.
        listening.listen()
    except OSError as error:
        listening.close()
        raise OSError(_why_not_bound(error, host, port)) from error
    return listening


def is_loopback(host: str) -> bool:
    """Say whether only programs of this machine can reach a host.

    Args:
        host: A name or a number.

    Returns:
        Whether it is this machine's own.
    """
    number = _number(host)
    return host.lower() == "localhost" or (number is not None and number.is_loopback)


def _why_not_bound(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is taken by another program; choose another by --port, or any by --port 0"
    if error.errno == errno.EACCES:
        return f"port {port} of {host} is not allowed for this user; choose one over 1023 by --port"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"host must be a name or a number of this machine, got {host!r}"
    return f"{host}, port {port}: {error.strerror or error}"


def _is_wildcard(host: str) -> bool:
    number = _number(host)
    return not host or (number is not None and number.is_unspecified)


def _own_number() -> str:
    """The number by which other machines reach this one, or its name where it has no network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unsent:
        try:
            # This sends nothing, but finds the interface that would; the address is one of documentation.
            unsent.connect(("192.0.2.1", 9))
        except OSError:
            return socket.gethostname()
        return str(unsent.getsockname()[0])


def _number(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
