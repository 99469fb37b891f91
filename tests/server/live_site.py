"""A hospital's node in a process of its own, which a test may kill: answers a plan, some time after it has said that it works on it."""

import json
import sys
import threading
import time
from pathlib import Path

from client.flower.app import at_work
from client.flower.line import Where
from client.flower.live import live_app
from client.flower.node import Node
from client.identity import load
from rainhill.errors import RefusedError
from rainhill.messages import Plan, Update


def main(about: dict[str, str]) -> None:
    identity = load(Path(about["identity"]))

    def answer(plan: Plan) -> Update:
        with Path(about["worked"]).open("a") as file:
            file.write(f"{plan.round}\n")
        time.sleep(float(about["seconds"]))
        return Update(run=plan.run, round=plan.round, site=plan.site, delta=plan.adapter, patients=5, steps=1, loss=0.5)

    def stand(sealed: bytes, number: int, nonce: bytes) -> bytes:
        raise RefusedError("nobody is offered anything here")

    app = live_app(about["site"], answer, stand=stand, signing=identity.signing, consortium=bytes.fromhex(about["consortium"]))
    where = Where(address=about["address"], trusted=Path(about["ca"]).read_bytes(), key=identity.node)
    Node(where, at_work(app), stop=threading.Event(), memory=Path(about["identity"]) / "node").run()


main(json.loads(sys.argv[1]))
