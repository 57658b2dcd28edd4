#!/usr/bin/env python3
"""Equipoise beside the routers people use today: same machine, same run, same engines, same load.

    python3 benches/peers/compare.py --install      # once: the peers, into a virtual environment
    python3 benches/peers/compare.py                # everything; --help for parts

Three mock engines on the loopback interface, wrk with one thread, a few seconds a row. Peers decide by round robin,
Equipoise with its full joint decision. CPU is that of the router's processes, from /proc. A peer that is not
installed is named and left out.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
# Each in an environment of its own: sglang-router brings a program called smg, too.
PEERS = {"vllm-router": "vllm-router==0.1.17", "sglang-router": "sglang-router==0.3.2", "smg": "smg==1.13.0"}
HEAVY_PEERS = {"litellm": "litellm[proxy]==1.106.2"}
ENGINE_PORTS = [19101, 19102, 19103]
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid):
    """CPU time of a process and of all that it started."""
    total, parents = 0.0, {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path(f"/proc/{entry}/stat").read_text()
            except OSError:
                continue
            fields = stat[stat.rindex(")") + 2 :].split()
            parents[int(entry)] = (int(fields[1]), (int(fields[11]) + int(fields[12])) / TICKS)
    for candidate in parents:
        ancestor = candidate
        while ancestor in parents and ancestor != pid:
            ancestor = parents[ancestor][0]
        if ancestor == pid:
            total += parents[candidate][1]
    return total


def resident_mb(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


class Process:
    """A program in a process group of its own, stopped at the end of the block."""

    def __init__(self, command, ready_url=None, environment=None):
        self.command, self.ready_url, self.environment = command, ready_url, environment

    def __enter__(self):
        self.log = tempfile.NamedTemporaryFile("w+", suffix=".log", delete=False)
        self.process = subprocess.Popen(
            [str(part) for part in self.command],
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
            env={**os.environ, **(self.environment or {})},
        )
        self.pid = self.process.pid
        deadline = time.time() + 60
        while self.ready_url and not answers(self.ready_url):
            if self.process.poll() is not None or time.time() > deadline:
                self.__exit__()
                raise RuntimeError(f"{self.command[0]} did not start; see {self.log.name}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_):
        try:
            os.killpg(self.pid, signal.SIGTERM)
            self.process.wait(10)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            pass
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


BODY = b'{"model":"bench","messages":[{"role":"user","content":"hello"}]}'


def answers(url):
    request = urllib.request.Request(url, BODY, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=2) as response:
            return response.status == 200
    except OSError:
        return False


def routers(options, policy):
    """Name, command, base URL and environment of every router that is installed."""
    workers = [f"http://127.0.0.1:{port}" for port in ENGINE_PORTS]
    found = []

    def peer(name, port, command, environment=None):
        program = Path(options.venv) / command[0] / "bin" / command[0]
        if program.exists():
            command = [program, *command[1:]]
            found.append((name, command, f"http://127.0.0.1:{port}", environment))
        else:
            print(f"{name}: not installed (--install), left out", flush=True)

    fleet = Path(tempfile.mkdtemp()) / "fleet.toml"
    endpoints = ", ".join(f'"{worker}"' for worker in workers)
    fleet.write_text(
        f'[scheduler]\npolicy = "equipoise"\n\n[[model]]\nname = "bench"\nquality = 0.7\nmean_output_tokens = 40\n\n'
        f'[[pool]]\nname = "mock"\nmodel = "bench"\nendpoints = [{endpoints}]\nlimits = {{ max_num_seqs = 256 }}\n'
    )
    found.append(
        (
            "equipoise",
            [options.equipoise, "up", "--fleet", fleet, "--listen", "127.0.0.1:19200", "--control-listen", "127.0.0.1:19280"]
            + ["--page-listen", "127.0.0.1:19281", "--nvml", "off"],
            "http://127.0.0.1:19200",
            {"EQUIPOISE_LOG": "error"},
        )
    )
    common = ["--host", "127.0.0.1", "--worker-urls", *workers, "--policy", policy, "--log-level", "error"]
    metrics = ["--prometheus-host", "127.0.0.1", "--prometheus-port"]
    peer("vllm-router 0.1.17", 19201, ["vllm-router", "--port", 19201, *common, *metrics, 19291])
    peer("sglang-router 0.3.2", 19202, ["sglang-router", "launch", "--port", 19202, *common, *metrics, 19292])
    smg = ["smg", "launch", "--port", 19203, *common, *metrics, 19293, "--disable-tokenizer-autoload", "--backend", "vllm"]
    peer("smg 1.13.0", 19203, smg)
    if options.litellm:
        config = Path(tempfile.mkdtemp()) / "litellm.yaml"
        models = "".join(
            f"  - model_name: bench\n    litellm_params: {{model: openai/bench, api_base: '{worker}/v1', api_key: none}}\n"
            for worker in workers
        )
        config.write_text(f"model_list:\n{models}")
        command = ["litellm", "--config", config, "--host", "127.0.0.1", "--port", 19204, "--num_workers", 1]
        peer("litellm 1.106.2", 19204, command, {"LITELLM_LOCAL_MODEL_COST_MAP": "True"})
    wanted = options.only.split(",") if options.only else []
    return [router for router in found if not wanted or any(router[0].startswith(name) for name in wanted)]


def wrk(url, connections, seconds, environment):
    """Requests, seconds, p50 and p99 in microseconds, failures."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "--latency", "-s", HERE / "chat.lua"]
    output = subprocess.run(
        [str(part) for part in command] + [f"{url}/v1/chat/completions"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    ).stdout
    line = next(line for line in output.splitlines() if line.startswith("RESULT"))
    requests, micros, p50, p99, failed = (float(field) for field in line.split()[1:])
    return requests, micros / 1e6, p50, p99, failed


def measure(router, connections, seconds, environment):
    before = cpu_seconds(router.pid)
    requests, span, p50, p99, failed = wrk(router.url, connections, seconds, environment)
    cpu = cpu_seconds(router.pid) - before
    return {
        "rate": requests / span,
        "p50": p50,
        "p99": p99,
        "cpu": cpu * 1e6 / max(requests, 1),
        "failed": failed,
    }


def table(head, rows):
    widths = [max(len(str(row[column])) for row in [head, *rows]) for column in range(len(head))]
    def line(cells):
        first, *rest = cells
        return "| " + " | ".join([str(first).ljust(widths[0])] + [str(c).rjust(w) for c, w in zip(rest, widths[1:])]) + " |"
    print(line(head))
    print("| " + " | ".join(["-" * widths[0]] + ["-" * (w - 1) + ":" for w in widths[1:]]) + " |")
    for row in rows:
        print(line(row))
    print(flush=True)


def closed_loop(options, title, connections, environment, policy="round_robin", engine=()):
    print(f"\n{title}", flush=True)
    head, rows = ["router"], []
    for count in connections:
        head += [f"req/s c={count}", "p50 us", "p99 us", "CPU us/req"]
    head += ["failed", "RSS MB"]
    with Process([options.mock, *engine, *ENGINE_PORTS]):
        time.sleep(0.3)
        direct = ["direct"]
        for count in connections:
            requests, span, p50, p99, _ = wrk(f"http://127.0.0.1:{ENGINE_PORTS[0]}", count, options.seconds, environment)
            direct += [f"{requests / span:.0f}", f"{p50:.0f}", f"{p99:.0f}", "-"]
        rows.append(direct + ["0", "-"])
        for name, command, url, extra in routers(options, policy):
            with Process(command, f"{url}/v1/chat/completions", extra) as router:
                router.url = url
                wrk(url, 16, 1, environment)
                row, failed = [name], 0
                for count in connections:
                    seen = measure(router, count, options.seconds, environment)
                    row += [f"{seen['rate']:.0f}", f"{seen['p50']:.0f}", f"{seen['p99']:.0f}", f"{seen['cpu']:.0f}"]
                    failed += seen["failed"]
                rows.append(row + [f"{failed:.0f}", f"{resident_mb(router.pid):.0f}"])
    table(head, rows)


def open_loop(options):
    """2,000 requests/s whether or not earlier ones were answered; latency from the time a request was due."""
    print("\nOpen loop, 2,000 requests/s, prompts of 200 bytes", flush=True)
    rows = []
    with Process([options.mock, *ENGINE_PORTS]):
        time.sleep(0.3)
        targets = [("direct", None, f"http://127.0.0.1:{ENGINE_PORTS[0]}", None), *routers(options, "round_robin")]
        for name, command, url, extra in targets:
            load = [options.live_load, "--url", url, "--rate", 2000, "--seconds", options.seconds, "--model", "bench", "--no-stream"]
            run = lambda: subprocess.run([str(part) for part in load], capture_output=True, text=True, check=True).stdout
            if command is None:
                output = run()
            else:
                with Process(command, f"{url}/v1/chat/completions", extra):
                    wrk(url, 16, 1, {"PROMPT_BYTES": "200"})
                    output = run()
            rows.append((name, output))
    for name, output in rows:
        print(f"{name}:\n{output.rstrip()}")


def install(options):
    wanted = {**PEERS, **(HEAVY_PEERS if options.litellm else {})}
    for name, package in wanted.items():
        print(f"installing {package}", flush=True)
        home = Path(options.venv) / name
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        done = subprocess.run([home / "bin" / "pip", "install", "--quiet", package])
        if done.returncode != 0:
            print(f"{package} could not be installed: it will be left out", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--install", action="store_true", help="install the peers and end")
    parser.add_argument("--litellm", action="store_true", help="litellm too: large and slow")
    parser.add_argument("--venv", default=str(REPOSITORY / "target" / "peers"), help="folder of the peers' virtual environments")
    parser.add_argument("--binaries", default=str(REPOSITORY / "target" / "release"), help="where ours were built")
    parser.add_argument("--seconds", type=int, default=8, help="of each row")
    parser.add_argument("--only", default="", help="routers, by the beginning of their names, comma-separated")
    parser.add_argument("--parts", default="chat,prefix,stream,open", help="what to measure")
    options = parser.parse_args()
    options.equipoise = Path(options.binaries) / "equipoise"
    options.mock = Path(options.binaries) / "mock-engine"
    options.live_load = Path(options.binaries) / "live-load"
    if options.install:
        return install(options)
    for binary in (options.equipoise, options.mock, options.live_load):
        if not binary.exists():
            sys.exit(f"{binary} is missing: cargo build --release -p equipoise -p equipoise-benches")
    parts = options.parts.split(",")
    if "chat" in parts:
        closed_loop(options, "Chat, prompts of 200 bytes, answers of 450", [1, 16, 64], {"PROMPT_BYTES": "200"})
    if "prefix" in parts:
        environment = {"PROMPT_BYTES": "16384"}
        closed_loop(options, "Prompts of 16 KiB, prefix affinity (peers: cache_aware)", [16], environment, "cache_aware")
    if "stream" in parts:
        environment = {"PROMPT_BYTES": "200", "STREAM": "1"}
        closed_loop(options, "Streams of 20 chunks, unpaced", [16], environment)
    if "open" in parts:
        open_loop(options)


if __name__ == "__main__":
    main()
