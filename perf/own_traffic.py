"""A hospital looks at all that crosses between its own daemon and its consortium, and searches it for what is its own.

    python -m perf.own_traffic SITE.toml [--port 9450]

To be run by the user of the daemon, on its machine. It makes an authority of its own and opens TLS as a proxy on loopback; what to write
into the site's file is printed, and to be taken out again afterwards. Ctrl-C, after a round or a run, begins the search. Nothing of what
crossed is written anywhere, and what is found is told by its kind. Exit code 1 where anything was found.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from client.home import SiteHome
from perf._tap import Tap
from perf.traffic import searched, told
from rainhill.supervise import stopped_by_signals


def looked_at(site_file: Path, *, port: int) -> bool:
    """Until it is stopped; whether nothing was found."""
    home, stop = SiteHome.open(site_file), stopped_by_signals()
    with tempfile.TemporaryDirectory() as folder, Tap(Path(folder) / "tap", trusted=home.ca).open(port) as tap:
        print(f'In {home.file}, and then start the daemon again:\n\n[network]\nproxy = "{tap.url}"\nextra_ca = "{tap.ca}"\n', flush=True)
        stop.wait()
    sent, brought = (sum(len(one.crossed(way)) for one in tap.connections) for way in ("up", "down"))
    print(f"{len(tap.connections)} connections, {sent} bytes sent, {brought} received")
    canaries, found = searched(site_file, tap)
    print(told(canaries, found))
    return not found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("site_file", type=Path, metavar="SITE.toml")
    parser.add_argument("--port", type=int, default=9450)
    options = parser.parse_args()
    sys.exit(0 if looked_at(options.site_file, port=options.port) else 1)


if __name__ == "__main__":
    main()
