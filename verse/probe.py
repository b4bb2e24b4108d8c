"""Ask this machine's server: ``python -m verse.probe /readyz``. For images, which have no curl. docs/containers.md"""

import http.client
import sys

from verse import settings

PATIENCE_S = 4  # less than the 5 s that whoever runs this gives it, so that the reason is told


def failure_of(path: str) -> str | None:
    """Why GET ``path`` on 127.0.0.1 is no 200; None where it is. One request, past any proxy, no database."""
    server = http.client.HTTPConnection("127.0.0.1", settings.PORT, timeout=PATIENCE_S)
    try:
        server.request("GET", path)
        answer = server.getresponse()
        return (
            None
            if answer.status == 200
            else f"{answer.status} {answer.read(1000).decode(errors='replace')}"
        )
    except (OSError, http.client.HTTPException) as error:
        return f"no answer: {error!r}"
    finally:
        server.close()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print("usage: python -m verse.probe PATH", file=sys.stderr)  # noqa: T201 - its only output
        sys.exit(2)
    sys.exit(failure_of(sys.argv[1]))
