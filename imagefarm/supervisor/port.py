"""The API's listening address: it must be free and allowed; port 0 chooses a free number."""

from __future__ import annotations

import errno
import socket

from imagefarm.errors import ConfigurationError, PortInUse


def claim_port(host: str, port: int) -> int:
    """Return `port` if it is free; for 0 choose a free port and return it.

    Raises PortInUse if another process listens there, ConfigurationError if the address is not this machine's or not allowed.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except socket.gaierror as error:
        raise ConfigurationError(f"host {host!r} is not an address of this machine: {error.strerror}") from None
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gunicorn does: sockets in TIME_WAIT do not count
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortInUse(
                    f"port {port} of {host} is in use; stop what listens there, or choose another with --port"
                ) from None
            raise ConfigurationError(f"cannot listen on {host} port {port}: {error.strerror}") from None
        return int(probe.getsockname()[1])
