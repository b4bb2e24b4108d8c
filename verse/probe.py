"""The client of the health probes: ``python -m verse.probe /readyz`` asks this machine's server.

For container images, which have no curl: docs/containers.md. The server's side: verse/health.py.
"""

import http.client
import sys

from verse import settings

TIMEOUT_S = 4  # less than the 5 s that orchestrators allow, so that the reason is printed


def failure_of(path: str) -> str | None:
    """Why GET ``path`` on 127.0.0.1 does not answer 200, or None. One request, no proxy."""
    server = http.client.HTTPConnection("127.0.0.1", settings.PORT, timeout=TIMEOUT_S)
    try:
        server.request("GET", path)
        response = server.getresponse()
        if response.status == 200:
            return None
        return f"{response.status} {response.read(1000).decode(errors='replace')}"
    except (OSError, http.client.HTTPException) as error:
        return f"no answer: {error!r}"
    finally:
        server.close()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print("usage: python -m verse.probe PATH", file=sys.stderr)  # noqa: T201 # a command
        sys.exit(2)
    sys.exit(failure_of(sys.argv[1]))
