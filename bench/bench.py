"""What tunegate costs beside nginx, measured in one run on one machine.

Other work on the machine moves every figure, so nothing here is an absolute claim: the upstream itself, nginx as a
plain proxy and tunegate are measured in turns, round by round, and compared within each round. Slowness never fails
this program; a wrong answer does.
"""

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
PATH = "/v1/chat/completions"
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
UPSTREAM_MODEL = "ft:gpt-4.1-mini-2025-04-14:acme:bench:0"
EVENTS = 100
EVENT_BYTES = 256
IDLE_STREAMS = 1000
CATALOG_MODELS = 100
SCRAPED_SECONDS = 10
BEGIN, END = "<!-- figures: written by bench/run.sh --write -->", "<!-- end of figures -->"


# ---- what is asked and answered ---------------------------------------------------------------------------------


def answer_1k():
    answer = {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "model": UPSTREAM_MODEL,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 19, "completion_tokens": 150, "total_tokens": 169},
    }
    space = 1024 - len(json.dumps(answer))
    answer["choices"][0]["message"]["content"] = ("word " * space)[:space]
    return json.dumps(answer)


def event(members):
    """One event of exactly EVENT_BYTES bytes, so that the upstream sends each in a chunk of its own."""
    frame = len("data: \n\n")
    members = dict(members)
    members["obfuscation"] = ""
    text = json.dumps(members, separators=(",", ":"))
    # `"usage":null` stays the last member, as OpenAI writes it
    pad = EVENT_BYTES - frame - len(text)
    return "data: " + text.replace('"obfuscation":""', '"obfuscation":"' + "x" * pad + '"') + "\n\n"


def stream_events():
    """100 events as OpenAI sends them when asked for usage: text, then the usage chunk, then the end."""
    head = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "model": "ft:bench"}
    events = []
    for at in range(EVENTS - 2):
        reason = "stop" if at == EVENTS - 3 else None
        choice = {"index": 0, "delta": {"content": f" token{at}"}, "finish_reason": reason}
        events.append(event({**head, "choices": [choice], "obfuscation": "", "usage": None}))
    usage = {"prompt_tokens": 19, "completion_tokens": EVENTS - 2, "total_tokens": EVENTS + 17}
    events.append(event({**head, "choices": [], "obfuscation": "", "usage": usage}))
    done = "data: [DONE]\n\n"
    events.append(": " + "x" * (EVENT_BYTES - len(done) - 4) + "\n\n" + done)
    return events


def stream_as_client_gets_it(events):
    """The client did not ask for usage: tunegate asks, reads, and takes it out again."""
    kept = [event.replace(',"usage":null', "") for event in events if '"prompt_tokens"' not in event]
    return "".join(kept)


def request_body(stream=False, size=0, model=None):
    question = "Say hello. " + "x" * max(0, size - 120)
    model = model or ("bench-stream" if stream else "bench")
    body = {"model": model, "messages": [{"role": "user", "content": question}]}
    return json.dumps({**body, "stream": True} if stream else body)


class Cell:
    """One kind of request."""

    def __init__(self, name, request, port_key, unit):
        self.name, self.request, self.port_key, self.unit = name, request, port_key, unit


CELLS = [
    Cell("JSON, 1 KB answer", request_body(), "json", "request"),
    Cell("300 KB request body, 1 KB answer", request_body(size=300 << 10), "json", "request"),
    Cell(f"stream of {EVENTS} events", request_body(stream=True), "stream", "stream"),
]


# ---- processes --------------------------------------------------------------------------------------------------


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def wait_for_port(port, process, log):
    for _ in range(300):
        if process.poll() is not None:
            raise SystemExit(f"bench: {process.args[0]} ended at once:\n{log.read_text(errors='replace')[-2000:]}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise SystemExit(f"bench: nothing listens on port {port} after 15 s")


def family(pid):
    """A process and its descendants."""
    children = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = [pid]
    for one in found:
        found.extend(children.get(one, []))
    return found


def cpu_seconds(pid):
    """User and system time of a process and its descendants."""
    ticks = 0
    for one in family(pid):
        with contextlib.suppress(OSError):
            fields = pathlib.Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS_PER_SECOND


def rss_mib(pid):
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", text)[1]) / 1024


def settled_rss_mib(pid):
    """The resident set once it has stopped growing."""
    before = rss_mib(pid)
    for _ in range(20):
        time.sleep(0.5)
        now = rss_mib(pid)
        if abs(now - before) < 0.1:
            return now
        before = now
    return before


class Thing:
    """Something that serves: where, and which process."""

    def __init__(self, name, process, ports, key="none", admin_port=None):
        self.name, self.process, self.ports, self.key, self.admin_port = name, process, ports, key, admin_port

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


NGINX = """
daemon off;
pid {dir}/pid;
error_log {log} error;
worker_processes {workers};
worker_rlimit_nofile 16384;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 100000000;
    keepalive_timeout 75s;
    client_max_body_size 64m;
    client_body_buffer_size 1m;
    tcp_nodelay on;
    types {{ text/event-stream sse; }}
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    {servers}
}}
"""

# `ssi` takes the length away, so the answer is chunked; small output buffers make each event a chunk and a write.
UPSTREAM_SERVERS = """
    server {{
        listen 127.0.0.1:{json};
        location / {{ default_type application/json; return 200 '{answer}'; }}
    }}
    server {{
        listen 127.0.0.1:{stream};
        root {dir};
        location / {{ error_page 418 =200 /answer.sse; return 418; }}
        location = /answer.sse {{
            internal; sendfile off; postpone_output 0; output_buffers 1 {event_bytes};
            ssi on; ssi_types text/event-stream;
        }}
    }}
"""

PROXY_SERVERS = """
    upstream json {{ server 127.0.0.1:{to_json}; keepalive 256; keepalive_requests 100000000; }}
    upstream stream {{ server 127.0.0.1:{to_stream}; keepalive 256; keepalive_requests 100000000; }}
    server {{
        listen 127.0.0.1:{json};
        location / {{ proxy_pass http://json; proxy_http_version 1.1; proxy_set_header Connection ""; }}
    }}
    server {{
        listen 127.0.0.1:{stream};
        location / {{
            proxy_pass http://stream; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
"""

PROVIDER = """
[providers.{name}]
kind = "openai"
base_url = "http://127.0.0.1:{port}/v1"
api_key = {{ env = "BENCH_PROVIDER_KEY" }}
"""

DEPLOYMENT = """
[deployments."{name}"]
provider = "{provider}"
model = "{model}"
price = {{ input_per_1m_usd = "{price}", output_per_1m_usd = "{price}" }}

[models."{alias}"]
deployments = ["{name}"]
"""


# Money on: a hold is durable before the upstream is called, budgets of three scopes decide on it, and the model, the key
# and its team are limited, all far above what is asked.
MONEY = """
[teams.bench]
limits = {{ requests_per_minute = 100000000, tokens_per_minute = 100000000000, concurrent = 10000 }}

[budgets.everything]
limit_usd = "100000000"
window = "month"

[budgets.keys]
limit_usd = "100000000"
window = "rolling 24h"
scope = {{ each = "key" }}

[budgets.model]
limit_usd = "100000000"
window = "day"
scope = {{ provider = "json" }}

[database]
durability = "{durability}"
{database}
"""
MOST = {"requests_per_minute": 100_000_000, "tokens_per_minute": 100_000_000_000, "concurrent": 10_000}


def load_catalog(upstream, price="0"):
    """A model for whole answers and one for streams; both names are rewritten on the way."""
    text = ""
    for alias, port_key in [("bench", "json"), ("bench-stream", "stream")]:
        text += PROVIDER.format(name=port_key, port=upstream.ports[port_key])
        text += DEPLOYMENT.format(name=alias, provider=port_key, model=UPSTREAM_MODEL, alias=alias, price=price)
    return text


class Postgres:
    """A server of its own, on a unix socket in a folder of its own."""

    def __init__(self, programs):
        self.programs = programs
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="tunegate-bench-pg-"))
        # it refuses to run as root
        self.user = "nobody" if os.geteuid() == 0 else None
        if self.user:
            shutil.chown(self.folder, self.user)
        self.run("initdb", "-U", "tunegate", "-A", "trust", "-E", "UTF8", "--locale=C", "-D", self.folder / "files").wait()
        # its own defaults but for where it listens: fsync is on
        self.server = self.run("postgres", "-D", self.folder / "files", "-k", self.folder, "-c", "listen_addresses=")
        for _ in range(200):
            if (self.folder / ".s.PGSQL.5432").exists():
                break
            time.sleep(0.05)

    @staticmethod
    def found():
        on_path = shutil.which("initdb")
        folders = [pathlib.Path(on_path).resolve().parent] if on_path else []
        folders += sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
        for folder in folders:
            if (folder / "initdb").exists() and (folder / "postgres").exists():
                return Postgres(folder)
        return None

    def run(self, program, *arguments):
        command = [str(self.programs / program), *map(str, arguments)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/"}
        return subprocess.Popen(command, user=self.user, **quiet)

    def url(self, name):
        self.run("createdb", "-h", self.folder, "-U", "tunegate", name).wait()
        return f"postgres://tunegate@localhost/{name}?host={self.folder}"

    def stop(self):
        self.server.send_signal(signal.SIGINT)
        self.server.wait(20)
        shutil.rmtree(self.folder, ignore_errors=True)


class Setup:
    """Everything that runs, and its folder."""

    def __init__(self, folder):
        self.folder = folder
        self.things = []

    def own_folder(self, name):
        own = self.folder / re.sub(r"\W", "-", name)
        own.mkdir()
        return own

    def nginx(self, name, workers, servers, **values):
        own = self.own_folder(name)
        json_port, stream_port = free_ports(2)
        log = own / "error.log"
        values.update(json=json_port, stream=stream_port, dir=own, event_bytes=EVENT_BYTES)
        text = NGINX.format(dir=own, log=log, workers=workers, servers=servers.format(**values))
        (own / "nginx.conf").write_text(text)
        (own / "answer.sse").write_text("".join(stream_events()))
        for one in [self.folder, own]:
            one.chmod(0o755)  # the workers may run as another user
        out = open(own / "out", "wb")
        process = subprocess.Popen(["nginx", "-p", str(own), "-c", str(own / "nginx.conf")], stdout=out, stderr=out)
        thing = Thing(name, process, {"json": json_port, "stream": stream_port})
        self.things.append(thing)
        wait_for_port(json_port, process, own / "out")
        return thing

    def tunegate(self, name, binary, threads, catalog, database_url=None, limited=False):
        own = self.own_folder(name)
        port, admin_port = free_ports(2)
        config = own / "tunegate.toml"
        config.write_text(
            f'[server]\nlisten = "127.0.0.1:{port}"\nthreads = {threads}\n'
            f'[admin]\nlisten = "127.0.0.1:{admin_port}"\n[state]\ndir = "{own}/var"\n[worker]\nenabled = false\n'
            + catalog
        )
        environment = {**os.environ, "BENCH_PROVIDER_KEY": "sk-bench-provider", "BENCH_DATABASE": database_url or ""}
        banner, log = own / "banner", own / "log"
        process = subprocess.Popen(
            [str(binary), "serve", "--config", str(config)],
            stdout=open(banner, "wb"), stderr=open(log, "wb"), env=environment, cwd=own,
        )
        thing = Thing(name, process, {"json": port, "stream": port}, admin_port=admin_port)
        self.things.append(thing)
        for one in [port, admin_port]:
            wait_for_port(one, process, log)
        for _ in range(400):
            found = re.search(r"key\s+(sk-tg-\S+)", banner.read_text())
            if found:
                thing.key = limited_key(thing, own) if limited else found[1]
                return thing
            time.sleep(0.05)
        raise SystemExit(f"bench: no key in the banner of {name}:\n{log.read_text()[-2000:]}")

    def stop(self):
        for thing in reversed(self.things):
            thing.stop()
        self.things.clear()


def limited_key(thing, own):
    """A key of a team, both with limits."""
    admin_key = (own / "var" / "admin_key").read_text().strip()
    body = json.dumps({"alias": "bench", "team": "bench", "limits": MOST})
    status, text = ask(thing.admin_port, admin_key, body, "/admin/v1/keys")
    if status != 201:
        raise SystemExit(f"bench: no key: {status} {text}")
    return json.loads(text)["key"]


# ---- does it answer rightly? ------------------------------------------------------------------------------------


def ask(port, key, body, path=PATH, method="POST"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, text


def counted(thing):
    """Served chat requests and tokens, as /metrics says."""
    _, text = ask(thing.admin_port, "", None, "/metrics", "GET")
    served = re.findall(
        r'tunegate_requests_total\{ending="served",endpoint="chat.completions",model="[^"]*"\} (\d+)', text)
    tokens = sum(int(n) for n in re.findall(r'tunegate_tokens_total\{[^}]*source="reported"\} (\d+)', text))
    return sum(int(n) for n in served), tokens


def ledger_rows(thing):
    """Entries of the ledger that are durable; 0 where there is none."""
    if not thing.admin_port:
        return 0
    _, text = ask(thing.admin_port, "", None, "/metrics", "GET")
    return sum(int(n) for n in re.findall(r"^tunegate_ledger_entries_total\{[^}]*\} (\d+)", text, re.M))


def check(thing):
    events = stream_events()
    for cell in CELLS:
        before = counted(thing) if thing.admin_port else None
        status, text = ask(thing.ports[cell.port_key], thing.key, cell.request)
        if cell.port_key == "json":
            want = answer_1k()
        else:
            want = stream_as_client_gets_it(events) if thing.admin_port else "".join(events)
        if status != 200 or text != want:
            raise SystemExit(f"bench: {thing.name}, {cell.name}: status {status}, body {text[:300]!r}")
        if not thing.admin_port:
            continue
        for _ in range(100):  # it is counted just after the answer has left
            now = counted(thing)
            if now[0] == before[0] + 1:
                break
            time.sleep(0.01)
        expected = 169 if cell.port_key == "json" else EVENTS + 17
        if (now[0] - before[0], now[1] - before[1]) != (1, expected):
            raise SystemExit(f"bench: {thing.name}, {cell.name}: /metrics went from {before} to {now}")


# ---- load -------------------------------------------------------------------------------------------------------


class Sample:
    def __init__(self, said, cpu, rows):
        self.rows_per_second = rows / (said["duration_us"] / 1e6)
        self.requests = said["requests"]
        self.per_second = said["requests"] / (said["duration_us"] / 1e6)
        self.p50_us, self.p99_us = said["p50_us"], said["p99_us"]
        self.cpu_us = cpu * 1e6 / max(1, said["requests"])


def load(thing, cell, connections, seconds, folder, word=None):
    request = folder / "request"
    request.write_text(cell.request)
    environment = {**os.environ, "BENCH_REQUEST": str(request), "BENCH_KEY": thing.key}
    if word:
        environment["BENCH_UNIQUE"] = word
    url = f"http://127.0.0.1:{thing.ports[cell.port_key]}{PATH}"
    command = ["wrk", "-t", "1", "-c", str(connections), "-d", f"{seconds}s", "-s", str(HERE / "wrk.lua"), url]
    rows_before = ledger_rows(thing)
    before = cpu_seconds(thing.process.pid)
    out = subprocess.run(command, env=environment, capture_output=True, text=True)
    cpu = cpu_seconds(thing.process.pid) - before
    found = re.search(r"^BENCH (.*)$", out.stdout, re.M)
    if not found:
        raise SystemExit(f"bench: wrk said nothing:\n{out.stdout}{out.stderr}")
    said = json.loads(found[1])
    if said["wrong_status"] or said["broken"] or not said["requests"]:
        raise SystemExit(f"bench: {thing.name}, {cell.name}, {connections} connections: {said}")
    return Sample(said, cpu, ledger_rows(thing) - rows_before)


def measure(things, options, folder):
    """Returns samples by cell, connections and thing, in the order of rounds."""
    samples = {}
    for cell in CELLS:
        if options.only and options.only not in cell.name:
            continue
        for connections in options.connections:
            for thing in things:
                load(thing, cell, connections, 1, folder)  # warm: connections, caches
            for turn in range(options.rounds):
                at = turn % len(things)
                for thing in things[at:] + things[:at]:
                    sample = load(thing, cell, connections, options.seconds, folder)
                    samples.setdefault((cell, connections, thing.name), []).append(sample)
                print(f"  {cell.name}, {connections} connections: round {turn + 1} of {options.rounds}",
                      file=sys.stderr)
    return samples


# ---- figures ----------------------------------------------------------------------------------------------------


def figure(value):
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def spread(values):
    return f"{statistics.median(values):.2f} [{min(values):.2f}..{max(values):.2f}]"


MEASURES = [("per second", "per_second"), ("p50, µs", "p50_us"), ("p99, µs", "p99_us"), ("own CPU, µs", "cpu_us"),
            ("ledger rows/s", "rows_per_second")]


def table(samples, names, base="nginx proxy"):
    """Medians of each, and medians of per-round ratios to the nginx proxy with their extremes."""
    compared = [name for name in names if name not in ("direct", base)]
    heads = ["", "direct", base] + compared + [f"{name} / {base}" for name in compared]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for cell, connections in dict.fromkeys((cell, connections) for cell, connections, _ in samples):
        plural = "" if connections == 1 else "s"
        lines.append(f"| **{cell.name}, {connections} connection{plural}** |" + " |" * (len(heads) - 1))
        for title, attribute in MEASURES:
            values = {
                name: [getattr(sample, attribute) for sample in samples[cell, connections, name]]
                for name in ["direct", base, *compared]
            }
            shown = [figure(statistics.median(values[name])) for name in ["direct", base, *compared]]
            ratios = [spread([a / b if b else 0 for a, b in zip(values[name], values[base])]) for name in compared]
            title = title.replace("per second", f"{cell.unit}s/s").replace("CPU, µs", f"CPU, µs/{cell.unit}")
            lines.append("| " + " | ".join([title, *shown, *ratios]) + " |")
    return "\n".join(lines)


# ---- memory -----------------------------------------------------------------------------------------------------


class HoldingUpstream:
    """Sends the first event of a stream and then holds it open; runs in a thread of its own."""

    def __init__(self):
        self.port = None
        self.streams = 0
        self.loop = asyncio.new_event_loop()
        self.ready = threading.Event()
        threading.Thread(target=self.run, daemon=True).start()
        self.ready.wait()

    def run(self):
        asyncio.set_event_loop(self.loop)
        server = self.loop.run_until_complete(asyncio.start_server(self.serve, "127.0.0.1", 0, backlog=4096))
        self.port = server.sockets[0].getsockname()[1]
        self.ready.set()
        self.loop.run_forever()

    async def serve(self, reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(re.search(rb"content-length: (\d+)", head, re.I)[1])
            await reader.readexactly(length)
            first = stream_events()[0].encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            writer.write(b"%x\r\n%s\r\n" % (len(first), first))
            await writer.drain()
            self.streams += 1
            await reader.read()  # until the gateway leaves
        writer.close()


def open_stream(port, key, model="bench-stream"):
    """A client that has got the first event of its stream."""
    client = socket.create_connection(("127.0.0.1", port), 30)
    body = request_body(stream=True, model=model)
    head = f"POST {PATH} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n\r\n"
    client.sendall((head + body).encode())
    got = b""
    while b"data: " not in got:
        more = client.recv(4096)
        if not more:
            raise SystemExit(f"bench: a held stream ended: {got!r}")
        got += more
    return client


def memory(setup, binary):
    """Rows of (what, MiB, target in MiB), each from a process of its own but for the streams."""
    rows = []
    holding = HoldingUpstream()
    provider = PROVIDER.format(name="any", port=holding.port)
    plain = provider + DEPLOYMENT.format(name="any", provider="any", model="*", alias="*", price="0")
    thing = setup.tunegate("memory-idle", binary, 2, plain)
    idle = settled_rss_mib(thing.process.pid)
    rows.append(("idle: started, no request yet, no token table", idle, 30))

    open_stream(thing.ports["json"], thing.key).close()
    before = settled_rss_mib(thing.process.pid)
    clients = [open_stream(thing.ports["json"], thing.key) for _ in range(IDLE_STREAMS)]
    during = settled_rss_mib(thing.process.pid)
    rows.append((f"{IDLE_STREAMS:,} idle streams add", during - before, 70))
    for client in clients:
        client.close()
    thing.stop()
    setup.things.remove(thing)

    models = [("o200k", "gpt-4.1-mini-2025-04-14"), ("cl100k", "gpt-3.5-turbo-0125")]
    tables = "".join(DEPLOYMENT.format(name=n, provider="any", model=m, alias=n, price="1") for n, m in models)
    thing = setup.tunegate("memory-tables", binary, 2, provider + tables)
    building = lambda: any(
        "token-tables" in (task / "comm").read_text() for task in pathlib.Path(f"/proc/{thing.process.pid}/task").iterdir()
    )
    with contextlib.suppress(OSError):
        while building():
            time.sleep(0.1)
    rows.append(("o200k and cl100k tables loaded", settled_rss_mib(thing.process.pid), 110))
    thing.stop()
    setup.things.remove(thing)
    return rows


def soak(setup, binary, minutes):
    """Resident memory over minutes: idle streams all the time, and whole answers as fast as 8 connections ask."""
    holding = HoldingUpstream()
    upstream = setup.nginx("direct", 1, UPSTREAM_SERVERS, answer=answer_1k())
    held = PROVIDER.format(name="held", port=holding.port)
    held += DEPLOYMENT.format(name="held", provider="held", model=UPSTREAM_MODEL, alias="held", price="0")
    thing = setup.tunegate("soak", binary, 0, load_catalog(upstream) + held)
    check(thing)
    before = settled_rss_mib(thing.process.pid)
    print(f"{before:8.1f} MiB before")
    clients = [open_stream(thing.ports["json"], thing.key, "held") for _ in range(IDLE_STREAMS)]
    print(f"{settled_rss_mib(thing.process.pid):8.1f} MiB with {IDLE_STREAMS:,} idle streams")
    asked = 0
    for half in range(1, 2 * minutes + 1):
        asked += load(thing, CELLS[0], 8, 30, setup.folder).requests
        print(f"{rss_mib(thing.process.pid):8.1f} MiB after {half / 2:.1f} minutes and {asked:,} requests", flush=True)
    for client in clients:
        client.close()
    print(f"{settled_rss_mib(thing.process.pid):8.1f} MiB with all streams closed")


def memory_table(rows):
    lines = ["| Gateway without the worker | MiB | target |", "|---|---|---|"]
    lines += [f"| {what} | {mib:.1f} | < {target}{'' if mib < target else ' (missed)'} |" for what, mib, target in rows]
    return "\n".join(lines)


# ---- /metrics ---------------------------------------------------------------------------------------------------


class Scrapes:
    """/metrics, asked each second on a connection of its own while something else goes on."""

    def __init__(self, thing):
        self.thing, self.ms, self.text = thing, [], ""
        self.over = threading.Event()

    def once(self, connection):
        started = time.perf_counter()
        connection.request("GET", "/metrics")
        response = connection.getresponse()
        body = response.read()
        self.ms.append((time.perf_counter() - started) * 1e3)
        if response.status != 200:
            raise SystemExit(f"bench: /metrics: {response.status}")
        self.text = body.decode()

    def run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.thing.admin_port, timeout=30)
        while not self.over.wait(1):
            self.once(connection)
        connection.close()

    def during(self, work):
        """What `work` returns; it is done while scrapes go on."""
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            return work()
        finally:
            self.over.set()
            thread.join()

    def row(self, what):
        lines = sum(not line.startswith("#") for line in self.text.splitlines())
        figures = [f"{statistics.median(self.ms):.1f}", f"{max(self.ms):.1f}"]
        figures += [f"{len(self.text) / 1024:,.0f}", f"{lines:,}"]
        return "| " + " | ".join([what, str(len(self.ms)), *figures]) + " |"


def metrics_section(setup, binary, options, folder):
    """How long a scrape takes, with nothing else going on and during the JSON cell, with a catalog of 100 models."""
    upstream = setup.nginx("metrics-upstream", 1, UPSTREAM_SERVERS, answer=answer_1k())
    catalog = load_catalog(upstream, "1")
    for at in range(CATALOG_MODELS - 2):  # beside the two that are asked
        name = f"model-{at}"
        catalog += DEPLOYMENT.format(name=name, provider="json", model=UPSTREAM_MODEL, alias=name, price="1")
    catalog += MONEY.format(durability="process", database="")
    thing = setup.tunegate("metrics", binary, 0, catalog, limited=True)
    check(thing)
    heads = [f"`/metrics`, a catalog of {CATALOG_MODELS} models", "scrapes", "p50, ms", "longest, ms", "KiB", "series"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    idle = Scrapes(thing)
    idle.during(lambda: time.sleep(SCRAPED_SECONDS))
    lines.append(idle.row("idle"))
    for connections in options.connections:
        busy = Scrapes(thing)
        sample = busy.during(lambda: load(thing, CELLS[0], connections, SCRAPED_SECONDS, folder))
        plural = "" if connections == 1 else "s"
        lines.append(busy.row(f"JSON, {connections} connection{plural}, {sample.per_second:,.0f} requests/s"))
    return "\n".join(lines)


# ---- the response cache -----------------------------------------------------------------------------------------


KEPT = """
[models."kept"]
deployments = ["bench"]
cache = {{ ttl_s = 3600 }}

[models."kept-stream"]
deployments = ["bench-stream"]
cache = {{ ttl_s = 3600 }}
"""


def kept_body(model, words, stream=False):
    body = {"model": model, "temperature": 0, "messages": [{"role": "user", "content": words}]}
    return json.dumps({**body, "stream": True} if stream else body)


def cache_section(setup, binary, options, folder):
    """Answers that are kept beside those that are asked for, money on: each cell in turns, by rounds."""
    upstream = setup.nginx("cache-upstream", 1, UPSTREAM_SERVERS, answer=answer_1k())
    catalog = load_catalog(upstream, "1") + KEPT.format() + MONEY.format(durability="process", database="")
    thing = setup.tunegate("cache", binary, options.threads, catalog, limited=True)
    cells = [
        ("JSON, not kept (the model has no cache)", request_body(), "json", False),
        ("JSON, miss: asked and kept", kept_body("kept", "Say hello. @@"), "json", True),
        ("JSON, hit", kept_body("kept", "Say hello."), "json", False),
        (f"stream of {EVENTS} events, miss", kept_body("kept-stream", "Say hello. @@", True), "stream", True),
        (f"stream of {EVENTS} events, hit", kept_body("kept-stream", "Say hello.", True), "stream", False),
        ("JSON made of a kept stream", kept_body("kept-stream", "Say hello."), "json", False),
    ]
    for what, request, port_key, _ in cells:
        status, text = ask(thing.ports[port_key], thing.key, request.replace("@@", "first"))
        if status != 200:
            raise SystemExit(f"bench: the cache, {what}: {status} {text[:300]}")
    heads = ["the response cache", "connections", "requests/s", "p50, µs", "p99, µs", "own CPU, µs/request"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for connections in options.connections:
        samples = {what: [] for what, *_ in cells}
        for at in range(options.rounds):
            for what, request, port_key, unique in cells:
                cell = Cell(what, request, port_key, "request")
                word = f"{connections}-{at}-{time.time_ns()}-" if unique else None
                samples[what].append(load(thing, cell, connections, options.seconds, folder, word))
        for what, *_ in cells:
            middle = [
                f"{statistics.median(getattr(sample, name) for sample in samples[what]):,.0f}"
                for name in ["per_second", "p50_us", "p99_us", "cpu_us"]
            ]
            lines.append("| " + " | ".join([what, str(connections), *middle]) + " |")
    return "\n".join(lines)


def answers_section():
    """The memory of 1,000,000 kept answers beside its bound; fails beyond a tenth."""
    command = ["cargo", "bench", "--quiet", "--bench", "answers"]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if out.returncode != 0:
        raise SystemExit(f"bench: the memory of kept answers: {out.stdout[-500:]}{out.stderr[-1000:]}")
    return f"### The memory of kept answers\n\n```text\n{out.stdout.strip()}\n```"


# ---- the worker -------------------------------------------------------------------------------------------------


def worker_section():
    """Tokens per second of the local backend; nothing where its program or its model is not there."""
    model = ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    if not (ROOT / "engine" / "examples" / "speed.rs").is_file() or not model.is_file():
        print("bench: the worker is not measured: make model", file=sys.stderr)
        return ""
    command = ["cargo", "run", "--release", "--quiet", "-p", "tunegate-engine", "--example", "speed", "--"]
    threads = str(len(os.sched_getaffinity(0)))
    out = subprocess.run([*command, str(model), threads], cwd=ROOT, capture_output=True, text=True)
    if out.returncode != 0:
        print(f"bench: the worker's speed could not be measured:\n{out.stderr[-1000:]}", file=sys.stderr)
        return ""
    return f"### The local worker, {threads} threads\n\n```text\n{out.stdout.strip()}\n```"


# ---- routing ----------------------------------------------------------------------------------------------------


def routing_section():
    """What a route's order costs a request, by kind of plan: an ignored test of the library prints it."""
    command = ["cargo", "test", "--release", "--quiet", "--lib", "--", "--ignored", "--nocapture", "--exact"]
    out = subprocess.run([*command, "gateway::prepare::tests::routing_costs"], cwd=ROOT, capture_output=True, text=True)
    figures = [json.loads(line) for line in out.stdout.splitlines() if line.startswith("{")]
    if out.returncode != 0 or not figures:
        raise SystemExit(f"bench: the cost of routing could not be measured:\n{out.stdout[-500:]}{out.stderr[-1000:]}")
    lines = ["### Routing, 100 routes of 10 deployments", ""]
    lines += ["| plan | own CPU, µs/request | p50, µs | p99, µs |", "|---|---|---|---|"]
    for one in figures:
        lines.append(f"| {one['plan']} | {one['cpu_us']:.1f} | {one['p50_us']:.1f} | {one['p99_us']:.1f} |")
    return "\n".join(lines)


# ---- all together -----------------------------------------------------------------------------------------------


def machine():
    cpu = re.search(r"model name\s*:\s*(.*)", pathlib.Path("/proc/cpuinfo").read_text())
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=9"]
    commit = subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"
    load_average = "{:.1f} {:.1f} {:.1f}".format(*os.getloadavg())
    cores = len(os.sched_getaffinity(0))
    return cores, cpu[1] if cpu else "unknown CPU", load_average, commit


def default_binary():
    target = os.environ.get("CARGO_TARGET_DIR", str(ROOT / "target"))
    return pathlib.Path(target) / "release" / "tunegate"


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="for each measurement")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--only", help="cells whose name contains this")
    parser.add_argument("--threads", type=int, default=0, help="of tunegate and of the nginx proxy; 0: one a core")
    parser.add_argument("--binary", type=pathlib.Path, default=default_binary())
    parser.add_argument("--also", action="append", default=[], metavar="NAME=BINARY", help="another tunegate beside it")
    parser.add_argument("--soak", type=int, metavar="MINUTES", help="only watch memory for so long")
    parser.add_argument("--no-money", action="store_true", help="only the line without holds, budgets and limits")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--no-load", action="store_true")
    parser.add_argument("--no-metrics", action="store_true")
    parser.add_argument("--no-cache", action="store_true")
    parser.add_argument("--no-worker", action="store_true")
    parser.add_argument("--no-routing", action="store_true")
    parser.add_argument("--write", action="store_true", help="put the figures into docs/BENCHMARKS.md")
    return parser.parse_args()


def report(options):
    cores, cpu, load_before, commit = machine()
    threads = options.threads or cores
    folder = pathlib.Path(tempfile.mkdtemp(prefix="tunegate-bench-"))
    setup = Setup(folder)
    parts = []
    postgres = None if options.no_money or options.no_load else Postgres.found()
    try:
        if not options.no_load:
            upstream = setup.nginx("direct", 1, UPSTREAM_SERVERS, answer=answer_1k())
            ports = {"to_json": upstream.ports["json"], "to_stream": upstream.ports["stream"]}
            proxy = setup.nginx("nginx proxy", threads, PROXY_SERVERS, **ports)
            things = [upstream, proxy]
            for name, binary in [("tunegate", options.binary)] + [one.split("=", 1) for one in options.also]:
                things.append(setup.tunegate(name, binary, threads, load_catalog(upstream)))
                if options.no_money:
                    continue
                priced = load_catalog(upstream, "1")
                for durability in ["process", "power"]:
                    catalog = priced + MONEY.format(durability=durability, database="")
                    with_money = f"{name}, money, {durability}"
                    things.append(setup.tunegate(with_money, binary, threads, catalog, limited=True))
                if postgres:
                    catalog = priced + MONEY.format(durability="process", database='url = { env = "BENCH_DATABASE" }')
                    url = postgres.url(f"bench{len(things)}")
                    with_money = f"{name}, money, PostgreSQL"
                    things.append(setup.tunegate(with_money, binary, threads, catalog, url, limited=True))
            for thing in things:
                check(thing)
            parts.append(table(measure(things, options, folder), [thing.name for thing in things]))
            setup.stop()
        if not (options.only or options.no_metrics):
            parts.append(metrics_section(setup, options.binary, options, folder))
            setup.stop()
        if not (options.only or options.no_cache):
            parts.append(cache_section(setup, options.binary, options, folder))
            setup.stop()
        if not options.no_memory:
            parts.append(memory_table(memory(setup, options.binary)))
    finally:
        setup.stop()
        if postgres:
            postgres.stop()
        shutil.rmtree(folder, ignore_errors=True)
    nginx = subprocess.run(["nginx", "-v"], capture_output=True, text=True).stderr.strip().rpartition("/")[2]
    head = (
        f"Commit {commit}, {time.strftime('%Y-%m-%d')}; {cores} cores ({cpu}), load average before {load_before}, after "
        + "{:.1f} {:.1f} {:.1f}".format(*os.getloadavg())
        + f"; nginx {nginx}; {threads} threads each; {options.rounds} rounds of {options.seconds} s."
    )
    if not (options.only or options.no_routing):
        parts.append(routing_section())
    if not (options.only or options.no_cache):
        parts.append(answers_section())
    if not (options.only or options.no_worker):
        parts.append(worker_section())
    return "\n\n".join(part for part in [head, *parts] if part) + "\n"


def write(text):
    path = ROOT / "docs" / "BENCHMARKS.md"
    before, _, rest = path.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")
    print(f"bench: written to {path.relative_to(ROOT)}", file=sys.stderr)


def main():
    options = parse_options()
    if not pathlib.Path(options.binary).is_file():
        raise SystemExit(f"bench: {options.binary} is not there: build it with cargo build --release")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < 4 * IDLE_STREAMS:
        print(f"bench: at most {hard} open files: the idle streams may not fit (ulimit -n)", file=sys.stderr)
    if options.soak:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="tunegate-bench-"))
        setup = Setup(folder)
        try:
            return soak(setup, options.binary, options.soak)
        finally:
            setup.stop()
            shutil.rmtree(folder, ignore_errors=True)
    text = report(options)
    print(text)
    if options.write:
        write(text)


if __name__ == "__main__":
    main()
