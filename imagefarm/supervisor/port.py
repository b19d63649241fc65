"""The address the API will listen on: free, allowed, and a number chosen when none is asked for."""

from __future__ import annotations

import errno
import socket

from imagefarm.errors import ConfigurationError, PortInUse


def claim_port(host: str, port: int) -> int:
    """Return `port` if one can listen there now, or for 0 a free one.

    Raises PortInUse if something listens there, ConfigurationError if the address is not this machine's or not allowed.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except socket.gaierror as error:
        raise ConfigurationError(f"host {host!r} is not an address of this machine: {error.strerror}") from None
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gunicorn does: past connections do not matter
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortInUse(
                    f"port {port} of {host} is in use; stop what listens there, or choose another with --port"
                ) from None
            raise ConfigurationError(f"cannot listen on {host} port {port}: {error.strerror}") from None
        return int(probe.getsockname()[1])
