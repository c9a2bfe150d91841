"""A `vllm` that serves the simulated engine, and fails as it is told to by the variable FAKE_VLLM.

What it was given goes to the folder FAKE_VLLM_SEEN, for the tests to look at.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path


def main() -> None:
    """Do what vLLM's command line does with `--version` and `serve`."""
    if sys.argv[1] == "--version":
        print("WARNING 11-21 17:00:00 [a.py:1] Something is not as it should be.\n0.24.0")
        return
    # A client that goes away in the middle of a stream is no news.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    told = json.loads(os.environ.get("FAKE_VLLM", "{}"))
    seen = Path(os.environ["FAKE_VLLM_SEEN"])
    if told.get("stubborn"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Like the workers of an engine; it inherits what is done with SIGTERM.
    worker = subprocess.Popen(["sleep", "600"])
    own = {
        "arguments": sys.argv[1:],
        "environment": dict(os.environ),
        "pids": [os.getpid(), worker.pid],
        "stdin": sys.stdin.read(),
    }
    (seen / f"{len(list(seen.iterdir()))}.json").write_text(json.dumps(own))
    for line in told.get("log", []):
        print(line, file=sys.stderr, flush=True)
    if "status" in told:
        sys.exit(told["status"])
    # It takes a quarter of a second, and `--version` and failures end before it.
    from aiohttp import web  # noqa: PLC0415
    from tests.profiling.measuring.simulated_engine import Behaviour, application  # noqa: PLC0415

    print(f"INFO 11-21 17:00:00 [api.py:1] key {os.environ['VLLM_API_KEY']}", flush=True)
    flags = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[3:] if "=" in word)
    does = Behaviour(**told.get("does", {}), key=os.environ["VLLM_API_KEY"], model=flags["served-model-name"])
    host, port = flags["host"], int(flags["port"])
    stop = not told.get("stubborn")
    web.run_app(application(does), host=host, port=port, print=None, handle_signals=stop, shutdown_timeout=0.1)


if __name__ == "__main__":
    main()
