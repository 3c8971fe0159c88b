"""The Autobahn test suite against `/echo`, diffed with what is expected.

    run.py                    sections 1 to 11 and a sample of 12 and 13 on io_uring, a smaller sample on epoll
    run.py --full             all 517 cases on both
    run.py --reactor R CASE…  some cases on one reactor; CASE may hold `*`
    run.py --write …          renews the lines of expected.txt for the cases that run

The cases are Autobahn's own, driven by the runner `kosoku`. A case passes with the behaviours OK and INFORMATIONAL only: the
others are failures even where expected.txt would have them.
"""

import argparse
import asyncio
import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.request

import kosoku
from kosoku._caseindex import initialize_shims

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
EXPECTED = HERE / "expected.txt"
ALL = ["*"]
# There is no section 8 or 11. Of 12 and 13 every kind of data and of offer, at small, middle and large, and in fragments.
BASE = [f"{section}.*" for section in (1, 2, 3, 4, 5, 6, 7, 9, 10)]
SAMPLE = BASE + [
    f"{offer}.{size}"
    for offer in [f"12.{n}" for n in range(1, 6)] + [f"13.{n}" for n in range(1, 8)]
    for size in (1, 5, 10, 18)
]
SMALL_SAMPLE = BASE + ["12.*.5", "13.*.11"]
PASSES = ("OK", "INFORMATIONAL")
CASES_IN_ALL = 517
HEAD = "# case, behaviour, behaviour at the close, code of the close frame; written by run.py --write"


def patch_cases():
    """Hands the cases of sections 12 and 13 bytes, as they expect: kosoku 0.1 gives them text when a message came without
    compression, which is up to the sender of each message (RFC 7692 section 6)."""
    initialize_shims()
    import case12_x_x as module

    for case in module.Case12_X_X + module.Case13_X_X:

        def on_message(self, msg, binary, of_case=case.onMessage):
            if isinstance(msg, str):
                msg = msg.encode("latin-1" if binary else "utf-8")
            of_case(self, msg, binary)

        case.onMessage = on_message


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class Gateway:
    """`ringway serve --debug-echo` on ports of its own."""

    def __init__(self, binary, reactor):
        self.port, internal = free_ports(2)
        self.ready = f"http://127.0.0.1:{internal}/readyz"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RINGWAY_")}
        address = [f"--address=127.0.0.1:{self.port}", f"--internal-address=127.0.0.1:{internal}"]
        # The message limit is /echo's own.
        command = [binary, "serve", "--debug-echo", "--shards=2", f"--reactor={reactor}", *address]
        self.process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)

    def __enter__(self):
        end = time.monotonic() + 30
        while True:
            if self.process.poll() is not None:
                sys.exit(f"the gateway ended with {self.process.returncode}")
            try:
                urllib.request.urlopen(self.ready, timeout=5).close()
                return f"ws://127.0.0.1:{self.port}/echo"
            except OSError:
                if time.monotonic() > end:
                    self.process.kill()
                    sys.exit("the gateway is not ready")
                time.sleep(0.02)

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


async def run(url, cases):
    try:
        results = await kosoku.run_fuzzingclient(url, cases, concurrency=4)
    except kosoku.FailureError as failure:
        # It holds the results of the failed ones only; the others are wanted, too.
        results = failure.results
    return {result.case_id: result for result in results}


def line(result):
    """`case behaviour close-behaviour code-of-the-close-frame`."""
    code = result.remote_close_code or "-"
    words = (result.behavior.value, result.behavior_close.value)
    return " ".join([result.case_id, *(word.replace(" ", "-") for word in words), str(code)])


def check(name, results, expected):
    """Prints what differs from what is expected; whether nothing does."""
    faults = []
    for case, result in results.items():
        got = line(result)
        passes = result.behavior.value in PASSES and result.behavior_close.value in PASSES
        if not passes or got != expected.get(case):
            faults.append(f"  want {expected.get(case)}\n  got  {got}: {result.result} {result.result_close}")
    print(f"{name}: {len(results)} cases, {len(faults)} differ", flush=True)
    print("\n".join(faults), end="\n" if faults else "")
    return not faults


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--full", action="store_true")
    arguments.add_argument("--write", action="store_true")
    arguments.add_argument("--reactor", choices=["uring", "epoll"])
    arguments.add_argument("cases", nargs="*", metavar="CASE")
    given = arguments.parse_args()
    patch_cases()
    binary = os.environ.get("RINGWAY_BIN", ROOT / "target/release/ringway")
    plan = {"uring": SAMPLE, "epoll": SMALL_SAMPLE}
    if given.full:
        plan = dict.fromkeys(plan, ALL)
    if given.cases:
        plan = {reactor: given.cases for reactor in plan}
    if given.reactor:
        plan = {given.reactor: plan[given.reactor]}
    expected = {}
    if EXPECTED.exists():
        lines = EXPECTED.read_text().splitlines()
        expected = {row.split()[0]: row for row in lines if not row.startswith("#")}
    good = True
    for reactor, cases in plan.items():
        begin = time.monotonic()
        with Gateway(binary, reactor) as url:
            results = asyncio.run(run(url, cases))
        name = f"{reactor}, {time.monotonic() - begin:.0f} s"
        if given.write:
            expected |= {case: line(result) for case, result in results.items()}
            rows = sorted(expected.values(), key=lambda row: [int(n) for n in row.split()[0].split(".")])
            EXPECTED.write_text("\n".join([HEAD, *rows, ""]))
        # A runner that lost cases would find nothing wrong.
        wanted = CASES_IN_ALL if cases is ALL else 1
        good &= check(name, results, expected) and len(results) >= wanted
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
