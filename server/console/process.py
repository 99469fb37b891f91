"""`python -m server.console.process`: the operator's console, in a process of its own."""

import json
import os
import sys
from pathlib import Path

from rainhill.supervise import Child
from server.home import Home

NAME = "console"


def child(home: Home, *, json_logs: bool) -> Child:
    about = json.dumps({"home": str(home.folder), "parent": os.getpid(), "json_logs": json_logs})
    return Child(name=NAME, command=[sys.executable, "-P", "-m", "server.console.process", about])


def main() -> None:
    # Here: the daemon, which only starts it, needs none of that, and is what the pages read from too.
    from rainhill.console.serve import keep_serving
    from server.console.pages import console_of

    said = json.loads(sys.argv[1])
    keep_serving(console_of(Home.open(Path(said["home"]))), parent=int(said["parent"]), json_logs=bool(said["json_logs"]))


if __name__ == "__main__":
    main()
