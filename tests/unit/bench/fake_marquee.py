"""Plays the sub-commands of `marquee demo` in no time. FAKE_LOG: a file to write the calls to.

FAKE_FAIL names a sub-command that ends with status 2; FAKE_HANG one that starts a background
process, which leaves its session and ignores interrupts, and then sleeps.
"""

import json
import os
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

BACKGROUND = (
    "import os, signal, sys, time\n"
    "os.setsid()\n"
    "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "print('up', flush=True)\n"
    "time.sleep(600)\n"
)
ANSWERS = {
    "/ready": {},
    "/users": {"users": ["ann"]},
    "/api/v1/recommendations/ann": {
        "user_id": "ann",
        "recommendations": [{"title": "Alien"}, {"title": "[Heat]"}],
    },
}
MEASURED = {"value": 0.5, "low": 0.4, "high": 0.6}
METRICS = ("ndcg@10", "hit@10", "recall@10", "mrr@10", "coverage@10")
EVALUATION = {
    "protocol": "leave-one-out",
    "split_hash": "abc",
    "models": {"two-tower": dict.fromkeys(METRICS, MEASURED)},
}


class Service(BaseHTTPRequestHandler):
    def do_GET(self):  # noqa: N802
        body = json.dumps(ANSWERS[self.path.split("?")[0]]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def main(name, *arguments):
    log = Path(os.environ["FAKE_LOG"])
    with log.open("a") as file:
        file.write(json.dumps([name, *arguments]) + "\n")
    if os.environ.get("FAKE_FAIL") == name:
        print("error: it broke", file=sys.stderr)
        sys.exit(2)
    if os.environ.get("FAKE_HANG") == name:
        child = subprocess.Popen([sys.executable, "-c", BACKGROUND], stdout=subprocess.PIPE)
        child.stdout.readline()
        log.with_suffix(".pid").write_text(f"{child.pid}\n")
        time.sleep(600)
    if name == "evaluate":
        print(json.dumps(EVALUATION))
    if name == "serve":
        port = int(arguments[arguments.index("--port") + 1])
        try:
            HTTPServer(("127.0.0.1", port), Service).serve_forever()
        except KeyboardInterrupt:
            sys.exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
