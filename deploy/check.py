#!/usr/bin/env python3
"""Checks everything in deploy/ without a container engine, a cluster or a running systemd.

    .venv/bin/python deploy/check.py [--configs FOLDER]

Each check says `ok NAME` or what is wrong; the exit code is 1 where anything is. `--configs` leaves every configuration
that we ship there, with its environment and the secrets that would be mounted, for `tunegate check-config` to read:
tests/deploy.rs does. `make deploy-check` installs the tools (deploy/requirements.txt).
"""

import argparse
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import helm_python
import kubernetes_validate
import yaml

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "tunegate"
COMPOSE = DEPLOY / "compose"
RULES = ROOT / "dashboards" / "rules"
# Programs of the virtual environment, then the system's.
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"

# The user of the image, and of everything that runs it.
USER = 65532
# What the gateway needs after its drain time-out (app/services.rs, PARTING_LIMIT) and some; seconds.
PARTING_S = 25
# The share of a container's or a unit's memory that a training may take: gateway and worker are in it, too.
MOST_OF_MEMORY = 0.5
# Highest exposure that `systemd-analyze security` may find.
MOST_EXPOSED = 2.0
# The oldest Kubernetes that the chart names, and the newest that we have schemas of.
KUBERNETES = ("1.30", "1.37")
# Kinds that come with the Prometheus operator: there is no schema of Kubernetes for them.
OPERATOR = "monitoring.coreos.com/v1"
# What a rule of a PrometheusRule may have (its API, v1).
RULE_KEYS = {"alert", "record", "expr", "for", "keep_firing_for", "labels", "annotations"}


class Wrong(Exception):
    """What is wrong, for the person."""


def need(holds: object, says: str) -> None:
    """Raises where something does not hold."""
    if not holds:
        raise Wrong(says)


def run(*command: str | Path, folder: Path = ROOT, environment: dict[str, str] | None = None) -> str:
    """Runs a tool; its whole output, or Wrong with it."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env={**os.environ, "PATH": PATH, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    need(done.returncode == 0, f"{command[0]}: {said.strip()}")
    return said


def tracked() -> list[Path]:
    """The files of the repository, also those that are not committed yet."""
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    return [Path(name) for name in listed if (ROOT / name).is_file()]


def read_yaml(path: Path) -> dict:
    """A YAML file of one document."""
    return yaml.safe_load(path.read_text())


def all_alerts() -> dict[str, str]:
    """Every alert of dashboards/rules with its severity."""
    return {
        rule["alert"]: rule["labels"]["severity"]
        for path in sorted(RULES.glob("*.yaml"))
        for group in read_yaml(path)["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }


# ---- the image -------------------------------------------------------------------------------------------------------


def dockerfile() -> None:
    """The Dockerfile: hadolint, pinned bases, an end that is nobody's root."""
    path = DEPLOY / "docker" / "Dockerfile"
    run("hadolint", "--failure-threshold", "style", path)
    text = path.read_text()
    for name, image in re.findall(r"^ARG (RUST|RUNTIME)=(\S+)$", text, re.MULTILINE):
        need(re.search(r":[^:@]+$", image) and not image.endswith(":latest"), f"{name}: {image} is not pinned")
    need(len(re.findall(r"^FROM \$\{(RUST|RUNTIME)\} AS ", text, re.MULTILINE)) == 3, "a base that is not an argument")
    stages = re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]
    need(stages[-1].strip() == "gateway", "the last stage is not the gateway as it is")
    gateway = next(stage for stage in stages if stage.startswith("${RUNTIME} AS gateway"))
    for line in (f"USER {USER}:{USER}", "STOPSIGNAL SIGTERM", "VOLUME /var/lib/tunegate", "HEALTHCHECK "):
        need(f"\n{line}" in gateway, f"the image has no {line}")
    for shell_form in re.findall(r"^\s*(?:CMD|ENTRYPOINT) (?!\[).*$", gateway, re.MULTILINE):
        raise Wrong(f"there is no shell to run {shell_form!r}")
    after = text[text.index(f"USER {USER}:{USER}") + 4 :]
    need("\nUSER " not in after, "a later USER undoes the first")


def build_context() -> None:
    """What .dockerignore lets through is enough to build from, and no more than the named."""
    allowed, refused = [], []
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line.startswith("!"):
            allowed.append(Path(line[1:]))
        elif line and not line.startswith("#") and line != "*":
            refused.append(line.removeprefix("**/"))
    need(all((ROOT / path).exists() for path in allowed), f".dockerignore names what is not there: {allowed}")
    with tempfile.TemporaryDirectory() as name:
        context = Path(name)
        for path in tracked():
            named = any(path == other or other in path.parents for other in allowed)
            if named and not set(path.parts) & set(refused):
                (context / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / path, context / path)
        run("cargo", "metadata", "--locked", "--offline", "--no-deps", "--format-version=1", folder=context)
        for source in (file for room in ("src", "dataset/src", "engine/src") for file in context.glob(f"{room}/**/*.rs")):
            if source.name == "tests.rs":
                continue
            for included in re.findall(r'include_(?:str|bytes)!\(\s*"([^"]+)"', source.read_text()):
                there = (source.parent / included).exists()
                need(there, f"{source.relative_to(context)} includes {included}: not in the build's context")
        need((context / "scripts" / "model.sh").exists(), "the stage `model` has no scripts/model.sh")


# ---- compose ---------------------------------------------------------------------------------------------------------


def compose_file() -> None:
    """compose.yaml: the schema, pinned images, nothing published beyond this machine, mounts that exist."""
    path = COMPOSE / "compose.yaml"
    run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", path)
    compose = read_yaml(path)
    for name, service in compose["services"].items():
        image = service["image"]
        need(re.fullmatch(r"[a-z0-9./-]+:v?[0-9]+\.[0-9][\w.-]*", image), f"{name}: {image} is not pinned")
        need("healthcheck" in service or "build" in service, f"{name} has no health check")
        need("no-new-privileges:true" in service["security_opt"], f"{name} may gain privileges")
        need(service["cap_drop"] == ["ALL"], f"{name} keeps capabilities")
        need(service.get("read_only") or name == "postgres", f"{name} may write into its image")
        for port in service.get("ports", []):
            loopback = port.startswith(("127.0.0.1:", "${TUNEGATE_BIND:-127.0.0.1}:"))
            need(loopback, f"{name} publishes {port} beyond this machine")
        for key in service.get("environment", {}):
            secret = re.search(r"PASSWORD|KEY|SECRET|TOKEN|URL__", key)
            need(not secret or key.endswith("_FILE"), f"{name}: {key} would be a secret in the open")
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith("."):
                need((COMPOSE / source).exists(), f"{name} mounts {source}, which is not there")
            else:
                need(source in compose["volumes"], f"{name}: the volume {source} is not declared")
        for secret in service.get("secrets", []):
            need(secret in compose["secrets"], f"{name}: the secret {secret} is not declared")
    need(compose["networks"]["database"]["internal"], "the database can be reached from outside")
    grace = int(compose["services"]["gateway"]["stop_grace_period"].removesuffix("s"))
    need(grace >= default_drain_s() + PARTING_S, f"stop_grace_period {grace}s cuts the drain off")


def mebibytes(text: str) -> int:
    """What `2Gi` is to Kubernetes, and `4G` to systemd: powers of two, both."""
    found = re.fullmatch(r"(\d+)(Gi|Mi|G|M)", text)
    need(found, f"{text!r} is no amount of memory that is understood here")
    return int(found[1]) * (1024 if found[2].startswith("G") else 1)


def room_to_train(place: str, tuning_mib: int, limit: str) -> None:
    """A training that takes all it may must not be what kills those that it shares its memory with."""
    fits = tuning_mib <= MOST_OF_MEMORY * mebibytes(limit)
    need(fits, f"{place}: a training may take {tuning_mib} MiB of {limit}, which the gateway and the worker share")


def default_drain_s() -> int:
    """server.drain_timeout_ms as config/full.toml says it is by default, seconds."""
    found = re.search(r"^drain_timeout_ms = (\d+)", (ROOT / "config" / "full.toml").read_text(), re.MULTILINE)
    need(found, "config/full.toml has no drain_timeout_ms")
    return int(found[1]) // 1000


def compose_secrets() -> None:
    """secrets.sh makes every secret that compose.yaml names, none twice, each for its readers alone."""
    run("shellcheck", COMPOSE / "secrets.sh")
    with tempfile.TemporaryDirectory() as name:
        script = shutil.copy(COMPOSE / "secrets.sh", name)
        run(script)
        folder = Path(name) / "secrets"
        first = {path.name: path.read_text() for path in folder.iterdir()}
        named = {Path(secret["file"]).name for secret in read_yaml(COMPOSE / "compose.yaml")["secrets"].values()}
        need(set(first) == named, f"secrets.sh made {sorted(first)}, compose.yaml names {sorted(named)}")
        need(stat.S_IMODE(folder.stat().st_mode) == 0o700, "the folder of the secrets is not its owner's alone")
        for path in folder.iterdir():
            need(path.stat().st_mode & 0o004, f"{path.name} can't be read by user {USER} in the container")
        run(script)
        need(first == {path.name: path.read_text() for path in folder.iterdir()}, "a second run changes secrets")
    need("/deploy/compose/secrets" in (ROOT / ".gitignore").read_text(), "git would take the secrets")


def prometheus_configuration() -> None:
    """prometheus.yml with our rules, as promtool reads it."""
    with tempfile.TemporaryDirectory() as name:
        text = (COMPOSE / "prometheus.yml").read_text()
        inside = "/etc/prometheus/rules"
        mounts = read_yaml(COMPOSE / "compose.yaml")["services"]["prometheus"]["volumes"]
        need(f"../../dashboards/rules:{inside}:ro" in mounts, "the rules are not mounted where prometheus.yml looks")
        need(f"{inside}/*.yaml" in text, "prometheus.yml does not read the rules")
        adapted = Path(name) / "prometheus.yml"
        adapted.write_text(text.replace(inside, str(RULES)))
        said = run("promtool", "check", "config", adapted)
    need(all_alerts(), "there is not one alert in dashboards/rules")
    need(f"{len(list(RULES.glob('*.yaml')))} rule files found" in said, f"not every file of rules is read: {said}")


def alertmanager_configuration() -> None:
    """alertmanager.yml, and that each severity of our alerts has a receiver of its own."""
    path = COMPOSE / "alertmanager.yml"
    run("amtool", "check-config", path)
    routes = ("amtool", "config", "routes", "test", f"--config.file={path}")
    alerts = all_alerts()
    for severity in sorted(set(alerts.values())):
        run(*routes, f"--verify.receivers={severity}", f"severity={severity}")
    for rule in read_yaml(path)["inhibit_rules"]:
        need("alertname" not in rule["equal"], "what inhibits and what is inhibited have two names")
        sources, targets = (matched_alerts(rule[side]) for side in ("source_matchers", "target_matchers"))
        need(sources | targets <= set(alerts), f"inhibited: no such alert: {(sources | targets) - set(alerts)}")
        need(all(alerts[name] == "page" for name in sources), f"{sources}: nobody is woken by them")
        need(all(alerts[name] != "page" for name in targets), f"{targets}: a page would be held back")


def matched_alerts(matchers: list[str]) -> set[str]:
    """The alerts that an inhibition names, each whole: its one matcher is of their names."""
    found = [re.fullmatch(r'alertname=~?"([\w|]+)"', matcher) for matcher in matchers]
    need(len(found) == 1 and found[0], f"inhibited by something else than names: {matchers}")
    return set(found[0][1].split("|"))


def grafana_provisioning() -> None:
    """Grafana's provisioning reads dashboards/*.json from where compose mounts them, through one data source."""
    provisioning = COMPOSE / "grafana" / "provisioning"
    (source,) = read_yaml(provisioning / "datasources" / "prometheus.yaml")["datasources"]
    need(source["uid"] and source["type"] == "prometheus" and source["isDefault"], "no default data source")
    (provider,) = read_yaml(provisioning / "dashboards" / "tunegate.yaml")["providers"]
    grafana = read_yaml(COMPOSE / "compose.yaml")["services"]["grafana"]
    inside = provider["options"]["path"]
    need(f"../../dashboards:{inside}:ro" in grafana["volumes"], "the dashboards are not mounted where Grafana looks")
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    need(str(home.parent) == inside and (ROOT / "dashboards" / home.name).exists(), f"there is no {home.name}")


def yaml_style() -> None:
    """yamllint, for all YAML but the chart's templates, which are not YAML yet."""
    rules = """
        extends: default
        rules:
          line-length: {max: 140}
          document-start: disable
          comments-indentation: disable
    """
    files = [
        path
        for path in tracked()
        if path.parts[0] == "deploy" and path.suffix in (".yaml", ".yml") and "templates" not in path.parts
    ]
    run("yamllint", "--strict", "--config-data", textwrap.dedent(rules), *files)


# ---- the chart -------------------------------------------------------------------------------------------------------


def value_files() -> dict[str, dict]:
    """The values that the chart is tried with, by name."""
    values = {path.name.removesuffix("-values.yaml"): read_yaml(path) for path in CHART.glob("ci/*-values.yaml")}
    return {"default": {}, **dict(sorted(values.items()))}


def render(chart: helm_python.Chart, values: dict) -> list[dict]:
    """Every object that the chart makes of these values."""
    rendered = chart.render(values, name="gate", namespace="llm")
    return [
        document
        for path, text in sorted(rendered.items())
        if path.endswith(".yaml")
        for document in yaml.safe_load_all(text)
        if document
    ]


def refusal(chart: helm_python.Chart, values: dict) -> str:
    """Why the chart does not take these values."""
    try:
        chart.render(values, name="gate", namespace="llm")
    except (helm_python.HelmValuesError, helm_python.HelmRenderError) as error:
        return str(error)
    raise Wrong(f"the chart takes {values}")


def chart_lint() -> None:
    """`helm lint --strict`; values.yaml and its schema name the same keys."""
    for values in value_files().values():
        report = helm_python.lint(str(CHART), values=values, strict=True)
        grave = [message for message in report["messages"] if message["severity"] >= 2]
        need(not grave and not report["errors"], f"helm lint: {grave} {report['errors']}")
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = read_yaml(CHART / "values.yaml")
    same_keys(values, schema, "")
    room_to_train("values.yaml", values["worker"]["tuningMemoryMiB"], values["resources"]["limits"]["memory"])
    version = re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    metadata = read_yaml(CHART / "Chart.yaml")
    need(metadata["version"] == metadata["appVersion"] == version[1], "the chart's version is not the crate's")


def same_keys(values: dict, schema: dict, place: str) -> None:
    """Where the schema is closed, values.yaml shows each of its keys and no other."""
    if schema.get("additionalProperties") is not False:
        return
    known = set(schema["properties"]) - {"global"}
    need(set(values) == known, f"values.yaml and the schema differ in {place or 'the top'}: {set(values) ^ known}")
    for key, value in values.items():
        if isinstance(value, dict):
            same_keys(value, schema["properties"][key], f"{place}.{key}")


def chart_refusals() -> None:
    """What can't work is refused, in words."""
    chart = helm_python.Chart.load(str(CHART))
    for values, says in [
        ({"replicas": 2}, "each gateway would count limits"),
        ({"replicas": 2, "database": {"type": "postgres", "existingSecret": "a"}}, "each gateway would count limits"),
        ({"replicaCount": 1}, "additional properties 'replicaCount' not allowed"),
        ({"database": {"type": "postgres", "existingSecret": "a"}}, "/pepper/existingSecret"),
        ({"database": {"type": "postgres"}, "pepper": {"existingSecret": "a"}}, "/database/existingSecret"),
        ({"adminKey": {"existingSecret": ""}}, "/adminKey/existingSecret"),
        ({"ingress": {"enabled": True}}, "/ingress/hosts"),
        ({"config": "[admin]\nlisten = '0.0.0.0:1'\n"}, "leave [admin] and [state] to the chart"),
        ({"config": "state.dir = '/tmp'\n"}, "leave [admin] and [state] to the chart"),
        ({"extraEnv": [{"name": "TUNEGATE__SERVER__LISTEN", "value": "127.0.0.1:1"}]}, "/extraEnv/0/name"),
        ({"providerSecrets": [{"name": "admin-key", "secretName": "a", "key": "b"}]}, "/providerSecrets/0/name"),
    ]:
        said = refusal(chart, values)
        need(says in said, f"{values} is refused without saying {says!r}: {said}")


def chart_manifests() -> None:
    """What the chart makes is valid, closed, and fits together; packaged, it makes the same."""
    chart = helm_python.Chart.load(str(CHART))
    with tempfile.TemporaryDirectory() as folder:
        packaged = helm_python.Chart.load_archive(Path(helm_python.package(str(CHART), destination=folder)).read_bytes())
    for name, values in value_files().items():
        objects = render(chart, values)
        try:
            check_objects(objects)
        except Wrong as wrong:
            raise Wrong(f"{name}: {wrong}") from wrong
        need(render(packaged, values) == objects, f"{name}: a packaged chart makes other objects")
    kinds = {kind for values in value_files().values() for kind in (o["kind"] for o in render(chart, values))}
    every = {path.read_text().split("\nkind: ")[1].split()[0] for path in CHART.glob("templates/**/*.yaml")}
    need(kinds >= every, f"no values in ci/ make {every - kinds}")


def check_objects(objects: list[dict]) -> None:
    """One release's objects."""
    named = [(o["kind"], o["metadata"]["name"]) for o in objects]
    need(len(set(named)) == len(named), f"two objects of one name: {named}")
    for o in objects:
        place = f"{o['kind']} {o['metadata']['name']}"
        need(o["metadata"]["namespace"] == "llm", f"{place} has no namespace")
        labels = o["metadata"]["labels"]
        for label in ("name", "instance", "component", "part-of", "managed-by"):
            need(f"app.kubernetes.io/{label}" in labels, f"{place} has no label {label}")
        if o["apiVersion"] != OPERATOR:
            for version in KUBERNETES:
                validate(o, version, place)
    pods = [(o["kind"], pod_of(o)) for o in objects if pod_of(o)]
    need(sorted(kind for kind, _ in pods) in (["Deployment", "Pod"], ["Pod", "StatefulSet"]), f"pods: {pods}")
    for kind, pod in pods:
        check_pod(kind, pod)
    gateway = next(pod for kind, pod in pods if kind != "Pod")
    check_references(objects, gateway)
    check_monitoring(objects)


def validate(o: dict, version: str, place: str) -> None:
    """An object against the schemas of one Kubernetes."""
    try:
        kubernetes_validate.validate(o, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        raise Wrong(f"{place}, Kubernetes {version}: {error.message}") from error


def pod_of(o: dict) -> dict | None:
    """The pod in an object: metadata and spec."""
    if o["kind"] == "Pod":
        return o
    return o["spec"]["template"] if o["kind"] in ("Deployment", "StatefulSet") else None


def check_pod(kind: str, pod: dict) -> None:
    """The restricted Pod Security Standard, no token, limits."""
    spec = pod["spec"]
    need(spec["automountServiceAccountToken"] is False, f"{kind}: a token is mounted")
    need(spec["enableServiceLinks"] is False, f"{kind}: every Service in its environment")
    context = spec["securityContext"]
    need(context["runAsNonRoot"] and context["runAsUser"] == USER, f"{kind}: not user {USER}")
    need(context["seccompProfile"]["type"] == "RuntimeDefault", f"{kind}: no seccomp profile")
    for container in spec["containers"]:
        own = container["securityContext"]
        need(own["allowPrivilegeEscalation"] is False, f"{kind}: may gain privileges")
        need(own["readOnlyRootFilesystem"], f"{kind}: may write into its image")
        need(own["capabilities"] == {"drop": ["ALL"]}, f"{kind}: keeps capabilities")
        need(container["resources"]["limits"]["memory"], f"{kind}: no limit of memory")
        need(not re.search(r"(:latest|:)$|^[^:@]+$", container["image"]), f"{kind}: {container['image']} is not pinned")


def check_references(objects: list[dict], gateway: dict) -> None:
    """Names that one object gives another: mounts, selectors, ports, time-outs."""
    (container,) = gateway["spec"]["containers"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        need(container[probe]["httpGet"]["port"] == "admin", f"{probe} is not on the admin port")
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    if environment["TUNEGATE__WORKER__ENABLED"] == "true":
        tuning_mib = int(environment["TUNEGATE__WORKER__TUNING_MEMORY_MIB"])
        room_to_train("the chart", tuning_mib, container["resources"]["limits"]["memory"])
    drain = int(environment["TUNEGATE__SERVER__DRAIN_TIMEOUT_MS"]) // 1000
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    grace = gateway["spec"]["terminationGracePeriodSeconds"]
    need(grace >= pause + drain + PARTING_S, f"a grace period of {grace} s cuts the drain off")
    volumes = {volume["name"] for volume in gateway["spec"]["volumes"]}
    for o in objects:
        if o["kind"] == "StatefulSet":
            volumes |= {claim["metadata"]["name"] for claim in o["spec"]["volumeClaimTemplates"]}
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    need(mounts == volumes, f"mounted {mounts}, there are {volumes}")
    ports = {port["name"] for port in container["ports"]}
    labels = gateway["metadata"]["labels"]
    for o in objects:
        if o["kind"] == "Service":
            need(o["spec"]["selector"].items() <= labels.items(), f"{o['metadata']['name']} selects no pod")
            need({port["targetPort"] for port in o["spec"]["ports"]} <= ports, "a Service leads to no port")
        if o["kind"] in ("NetworkPolicy", "PodDisruptionBudget"):
            selector = o["spec"].get("podSelector") or o["spec"].get("selector")
            need(selector["matchLabels"].items() <= labels.items(), f"{o['kind']} selects no pod")
        if o["kind"] == "Pod":
            services = [s["spec"]["selector"] for s in objects if s["kind"] == "Service"]
            own = o["metadata"]["labels"].items()
            need(not any(selector.items() <= own for selector in services), "a Service selects the test's pod")


def check_monitoring(objects: list[dict]) -> None:
    """Prometheus' and Grafana's objects: all there or none, and what dashboards/ has."""
    monitors = [o for o in objects if o["kind"] == "ServiceMonitor"]
    rules = [o for o in objects if o["kind"] == "PrometheusRule"]
    for monitor in monitors:
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        found = [s for s in objects if s["kind"] == "Service" and wanted <= s["metadata"]["labels"].items()]
        need(len(found) == 1, f"the ServiceMonitor selects {len(found)} Services")
        ports = {port["name"] for port in found[0]["spec"]["ports"]}
        (endpoint,) = monitor["spec"]["endpoints"]
        need(endpoint["port"] in ports and endpoint["path"] == "/metrics", "the ServiceMonitor finds no /metrics")
        need(endpoint.get("honorLabels"), "the operator's label `endpoint` would take the place of ours")
        need(found[0]["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "tunegate", "the job is not tunegate")
    for rule in (rule for o in rules for group in o["spec"]["groups"] for rule in group["rules"]):
        need(set(rule) <= RULE_KEYS, f"the operator does not know {set(rule) - RULE_KEYS} of a rule")
    if rules:
        groups = [group for o in rules for group in o["spec"]["groups"]]
        written = [group for path in sorted(RULES.glob("*.yaml")) for group in read_yaml(path)["groups"]]
        need(groups == written, "the chart's rules are not those of dashboards/rules")
        names = {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}
        need(names and names == set(all_alerts()), f"alerts that are missing: {set(all_alerts()) - names}")
    boards = [o for o in objects if o["kind"] == "ConfigMap" and "tunegate.toml" not in o["data"]]
    if boards:
        shipped = {name: json.loads(text) for o in boards for name, text in o["data"].items()}
        written = {path.name: json.loads(path.read_text()) for path in ROOT.glob("dashboards/*.json")}
        need(shipped == written, f"dashboards that are missing: {set(written) ^ set(shipped)}")
        need(all(o["metadata"]["labels"]["grafana_dashboard"] == "1" for o in boards), "the sidecar finds none")


# ---- systemd ---------------------------------------------------------------------------------------------------------


def systemd_units() -> None:
    """The units: no unknown setting, little exposed, and time enough to stop."""
    for path in sorted((DEPLOY / "systemd").glob("*.service")):
        with tempfile.TemporaryDirectory() as name:
            # verify wants the program to be there: `true` stands in for it
            unit = Path(name) / path.name
            unit.write_text(path.read_text().replace("/usr/local/bin/tunegate", "/bin/true"))
            said = run("systemd-analyze", "verify", "--man=no", unit)
            need(path.name not in said, f"systemd-analyze verify: {said}")
        said = run("systemd-analyze", "security", "--no-pager", "--offline=true", path)
        exposed = float(re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)[1])
        need(exposed <= MOST_EXPOSED, f"{path.name} is exposed: {exposed}")
    gateway = (DEPLOY / "systemd" / "tunegate.service").read_text()
    stop = int(re.search(r"^TimeoutStopSec=(\d+)s$", gateway, re.MULTILINE)[1])
    need(stop >= default_drain_s() + PARTING_S, f"TimeoutStopSec={stop}s cuts the drain off")
    tuned = re.search(r"^tuning_memory_mib = (\d+)", (DEPLOY / "systemd" / "tunegate.toml").read_text(), re.MULTILINE)
    need(tuned, "deploy/systemd/tunegate.toml has no tuning_memory_mib")
    default = re.search(r"^tuning_memory_mib = (\d+)", (ROOT / "config" / "full.toml").read_text(), re.MULTILINE)
    for unit, tuning_mib in (("tunegate", tuned[1]), ("tunegate-worker", default[1])):
        text = (DEPLOY / "systemd" / f"{unit}.service").read_text()
        limit = re.search(r"^MemoryMax=(\S+)$", text, re.MULTILINE)
        need(limit, f"{unit}.service has no MemoryMax")
        room_to_train(f"{unit}.service", int(tuning_mib), limit[1])
        need("\nOOMPolicy=continue\n" in text, f"{unit}.service: a trainer that is killed stops the whole unit")


# ---- configurations --------------------------------------------------------------------------------------------------


def leave(folder: Path, name: str, text: str, environment: dict[str, str], secrets: dict[str, str]) -> None:
    """Leaves a configuration as its process would find it, mounted secrets and all, in a folder of its own."""
    own = folder / name
    for path, value in secrets.items():
        (own / path.removeprefix("/")).parent.mkdir(parents=True, exist_ok=True)
        (own / path.removeprefix("/")).write_text(value)
    moved = {key: below(own, value) for key, value in environment.items()}
    own.mkdir(parents=True, exist_ok=True)
    (own / "tunegate.toml").write_text(below(own, text))
    (own / "environment").write_text("".join(f"{key}={value}\n" for key, value in sorted(moved.items())))


def below(folder: Path, text: str) -> str:
    """A text whose paths of secrets lead into a folder."""
    return re.sub(r"(?=/run/(secrets|credentials)/)", str(folder), text)


def secret_for(name: str) -> str:
    """A secret that fits its place."""
    return "postgres://u:p@localhost:5432/d" if "database" in name else f"a-secret-for-{name}"


def leave_configurations(folder: Path) -> None:
    """Every configuration that we ship, as it would be mounted."""
    chart = helm_python.Chart.load(str(CHART))
    for name, values in value_files().items():
        objects = render(chart, values)
        gateway = next(pod for o in objects if o["kind"] != "Pod" and (pod := pod_of(o)))
        (container,) = gateway["spec"]["containers"]
        text = next(o["data"]["tunegate.toml"] for o in objects if "tunegate.toml" in o.get("data", {}))
        projected = next(v["projected"] for v in gateway["spec"]["volumes"] if v["name"] == "secrets")
        mounted = next(m["mountPath"] for m in container["volumeMounts"] if m["name"] == "secrets")
        files = [item["path"] for source in projected["sources"] for item in source["secret"]["items"]]
        environment = {entry["name"]: entry.get("value", secret_for(entry["name"])) for entry in container["env"]}
        leave(folder, f"helm-{name}", text, environment, {f"{mounted}/{file}": secret_for(file) for file in files})
    gateway = read_yaml(COMPOSE / "compose.yaml")["services"]["gateway"]
    secrets = {f"/run/secrets/{name}": secret_for(name) for name in gateway["secrets"]}
    text = (COMPOSE / "gateway" / "tunegate.toml").read_text()
    image = re.findall(r"(TUNEGATE__\w+)=(\S+)", (DEPLOY / "docker" / "Dockerfile").read_text())
    environment = {**dict(image), **{key: value for key, value in gateway["environment"].items() if value}}
    leave(folder, "compose", text, environment, secrets)
    # what the files suggest, as it would be without its comment signs
    uncommented = partial(re.sub, r"^# ?(?=\[|\w+ = )", "", flags=re.MULTILINE)
    suggested = re.findall(r"^#(TUNEGATE__\w+)=(\S+)", (COMPOSE / ".env.example").read_text(), re.MULTILINE)
    leave(folder, "compose-postgres", uncommented(text), {**environment, **dict(suggested)}, secrets)
    text = (DEPLOY / "systemd" / "tunegate.toml").read_text()
    unit = (DEPLOY / "systemd" / "tunegate.service").read_text()
    need(re.search(r"^LoadCredential=tunegate:", unit, re.MULTILINE), "the unit passes no credentials on")
    credentials = {f"/run/credentials/tunegate.service/tunegate_{name}": secret_for(name) for name in ("admin", "openai")}
    leave(folder, "systemd", text, {}, {})
    leave(folder, "systemd-providers", uncommented(text), {}, credentials)


CHECKS: list[Callable[[], None]] = [
    dockerfile,
    build_context,
    compose_file,
    compose_secrets,
    prometheus_configuration,
    alertmanager_configuration,
    grafana_provisioning,
    yaml_style,
    chart_lint,
    chart_refusals,
    chart_manifests,
    systemd_units,
]


def failures() -> Iterator[str]:
    """Runs every check and says how it went; the names of those that found something."""
    for check in CHECKS:
        name = check.__name__.replace("_", "-")
        try:
            check()
        except (Wrong, helm_python.HelmError, yaml.YAMLError) as wrong:
            print(f"WRONG {name}: {wrong}")
            yield name
        else:
            print(f"ok {name}")


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", type=Path, metavar="FOLDER", help="where to leave the configurations")
    options = parser.parse_args()
    helm_python.disable_logging()
    found = list(failures())
    if options.configs:
        leave_configurations(options.configs)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
