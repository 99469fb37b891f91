"""`python -m client.console.process`: a site's console, in a process of its own."""

import json
import os
import sys
from pathlib import Path

from client.home import SiteHome
from rainhill.supervise import Child

NAME = "console"


def child(home: SiteHome, *, json_logs: bool) -> Child:
    about = json.dumps({"site": str(home.file), "parent": os.getpid(), "json_logs": json_logs})
    return Child(name=NAME, command=[sys.executable, "-P", "-m", "client.console.process", about])


def main() -> None:
    # Here: the daemon, which only starts it, needs none of that.
    from client.console.pages import console_of
    from rainhill.console.serve import keep_serving

    said = json.loads(sys.argv[1])
    keep_serving(console_of(SiteHome.open(Path(said["site"]))), parent=int(said["parent"]), json_logs=bool(said["json_logs"]))


if __name__ == "__main__":
    main()
