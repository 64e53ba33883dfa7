"""The manifests in deploy/: what they promise, and a rehearsal of their commands as processes of this machine."""

from __future__ import annotations

import copy
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import kubernetes_validate
import numpy as np
import psutil
import pytest
import xarray as xr
import yaml
from dask.utils import parse_bytes
from distributed import Client

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
VERSIONS = ("1.31", "1.34")
ADDRESS = "tcp://daskmix-scheduler:8786"
FOLDERS = ("HOME", "NUMBA_CACHE_DIR", "MPLCONFIGDIR")  # that the environment names

Manifest = dict[str, Any]
Manifests = dict[tuple[str, str], Manifest]


@pytest.fixture(scope="module")
def manifests() -> Manifests:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed, and it renders deploy/job")
    rendered = subprocess.run(
        ["kubectl", "kustomize", str(DEPLOY / "job")], check=True, capture_output=True, text=True, timeout=60
    )
    return {(doc["kind"], doc["metadata"]["name"]): doc for doc in yaml.safe_load_all(rendered.stdout)}


def pods(manifests: Manifests) -> dict[str, Manifest]:
    """The pod templates, by the component that they run."""
    templates = [doc["spec"]["template"] for (kind, _), doc in manifests.items() if kind in ("Deployment", "Job")]
    return {template["metadata"]["labels"]["app.kubernetes.io/component"]: template for template in templates}


def container(manifests: Manifests, component: str) -> Manifest:
    (only,) = pods(manifests)[component]["spec"]["containers"]
    return only


def environment(manifests: Manifests, box: Manifest, **instead: str) -> dict[str, str]:
    """What the container finds in its environment, with some values replaced as another ConfigMap would."""
    found: dict[str, str] = {}
    for source in box["envFrom"]:
        if "configMapRef" in source:
            found.update(manifests["ConfigMap", source["configMapRef"]["name"]]["data"])
    assert instead.keys() <= found.keys()
    found.update(instead)
    found.update({entry["name"]: entry["value"] for entry in box["env"]})
    return found


def command(box: Manifest, env: Mapping[str, str]) -> list[str]:
    """The words of the container's command line, each $(NAME) replaced as the kubelet does."""
    return [re.sub(r"\$\((\w+)\)", lambda name: env[name[1]], word) for word in [*box["command"], *box["args"]]]


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


# The manifests


@pytest.mark.parametrize("version", VERSIONS)
def test_every_document_is_valid_and_has_no_unknown_field(manifests: Manifests, version: str) -> None:
    for doc in manifests.values():
        kubernetes_validate.validate(doc, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_misspelt_field_would_be_found(manifests: Manifests, version: str) -> None:
    job = copy.deepcopy(manifests["Job", "daskmix-fit"])
    job["spec"]["template"]["spec"]["enableServiceLink"] = False
    with pytest.raises(kubernetes_validate.ValidationError, match="enableServiceLink"):
        kubernetes_validate.validate(job, version, strict=True)


def test_there_are_a_scheduler_two_workers_and_a_driver(manifests: Manifests) -> None:
    assert set(pods(manifests)) == {"scheduler", "worker", "fit"}
    assert manifests["Deployment", "daskmix-scheduler"]["spec"]["replicas"] == 1
    assert manifests["Deployment", "daskmix-worker"]["spec"]["replicas"] == 2


def test_every_pod_is_confined(manifests: Manifests) -> None:
    for template in pods(manifests).values():
        spec = template["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] >= 10000
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        for box in [*spec["containers"], *spec.get("initContainers", [])]:
            assert box["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "privileged": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_every_folder_that_is_written_to_is_an_empty_dir_on_disk_with_a_limit(manifests: Manifests) -> None:
    for component, template in pods(manifests).items():
        volumes = {v["name"]: v["emptyDir"] for v in template["spec"]["volumes"] if "emptyDir" in v}
        assert all("sizeLimit" in volume and "medium" not in volume for volume in volumes.values())
        box = container(manifests, component)
        mounted = {mount["mountPath"] for mount in box["volumeMounts"] if mount["name"] in volumes}
        env = environment(manifests, box)
        written = [env[name] for name in FOLDERS]
        if component == "worker":
            written.append(option(command(box, env), "--local-directory"))
        for folder in map(Path, written):
            assert mounted & {str(parent) for parent in (folder, *folder.parents)}, folder


def test_memory_is_guaranteed(manifests: Manifests) -> None:
    for component in pods(manifests):
        resources = container(manifests, component)["resources"]
        assert resources["requests"]["memory"] == resources["limits"]["memory"]


def test_dask_sees_the_memory_end_before_the_kernel_does(manifests: Manifests) -> None:
    box = container(manifests, "worker")
    dask_limit = parse_bytes(option(command(box, environment(manifests, box)), "--memory-limit"))
    # The nanny, a second process in the same container, needs some 150 MB of what is left.
    assert dask_limit + 2**28 <= parse_bytes(box["resources"]["limits"]["memory"] + "B")


def test_all_run_the_same_image(manifests: Manifests) -> None:
    images = {container(manifests, component)["image"] for component in pods(manifests)}
    assert len(images) == 1
    assert images != {"daskmix"}, "the name in kustomization.yaml was not put in"


def test_driver_and_workers_call_the_scheduler_by_the_name_and_port_of_its_service(manifests: Manifests) -> None:
    service = manifests["Service", "daskmix-scheduler"]
    (port,) = (port["port"] for port in service["spec"]["ports"] if port["name"] == "scheduler")
    address = f"tcp://{service['metadata']['name']}:{port}"
    assert address == ADDRESS
    fit, worker, scheduler = (container(manifests, component) for component in ("fit", "worker", "scheduler"))
    assert option(command(fit, environment(manifests, fit)), "--scheduler") == address
    assert worker["args"][0] == address
    ports = {port["name"]: str(port["containerPort"]) for port in scheduler["ports"]}
    assert option(scheduler["args"], "--port") == ports["scheduler"]
    assert option(scheduler["args"], "--dashboard-address") == f":{ports['http']}"


def test_probes_ask_for_health_at_the_port_of_the_dashboard(manifests: Manifests) -> None:
    for component in ("scheduler", "worker"):
        box = container(manifests, component)
        ports = {port["name"]: port["containerPort"] for port in box["ports"]}
        assert option(box["args"], "--dashboard-address") == f":{ports['http']}"
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert box[probe]["httpGet"] == {"path": "/health", "port": "http"}


def test_bad_input_fails_the_job_at_once_and_a_lost_node_does_not_count(manifests: Manifests) -> None:
    job = manifests["Job", "daskmix-fit"]["spec"]
    assert job["backoffLimit"] >= 1
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    name = container(manifests, "fit")["name"]
    assert job["podFailurePolicy"]["rules"] == [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": {"containerName": name, "operator": "In", "values": [2]}},
    ]


def job_file(manifests: Manifests) -> str:
    """What the driver finds where its command looks for the job."""
    box, template = container(manifests, "fit"), pods(manifests)["fit"]
    (name, *_) = box["args"]
    (mount,) = (mount for mount in box["volumeMounts"] if Path(name).parent == Path(mount["mountPath"]))
    (volume,) = (volume for volume in template["spec"]["volumes"] if volume["name"] == mount["name"])
    text: str = manifests["ConfigMap", volume["configMap"]["name"]]["data"][Path(name).name]
    return text


def test_the_job_finds_its_file_and_every_variable_that_it_names(manifests: Manifests, tmp_path: Path) -> None:
    from daskmix.cli.job import read

    box = container(manifests, "fit")
    env = environment(manifests, box)
    assert command(box, env)[:3] == ["daskmix", "run", "/job/job.toml"]
    (tmp_path / "job.toml").write_text(job_file(manifests))
    job = read(str(tmp_path / "job.toml"), env)
    assert job.source().store == env["INPUT"]
    assert job.outputs(False).model == env["OUTPUT"]
    assert job.outputs(False).overwrite
    assert job.task(told=False).run.checkpoint == env["CHECKPOINT"]


def test_credentials_go_to_driver_and_workers_and_may_be_absent(manifests: Manifests) -> None:
    secret = {"secretRef": {"name": "daskmix-object-store", "optional": True}}
    holders = {component for component in pods(manifests) if secret in container(manifests, component)["envFrom"]}
    assert holders == {"fit", "worker"}
    assert "Secret" not in {kind for kind, _ in manifests}


def test_every_setting_of_dask_is_one_that_dask_has(manifests: Manifests) -> None:
    for component in pods(manifests):
        env = environment(manifests, container(manifests, component))
        settings = dask.config.collect_env({name: value for name, value in env.items() if name.startswith("DASK_")})
        known = dask.config.merge(*dask.config.defaults)
        for name, value in leaves(settings):
            dask.config.get(name, config=known)  # KeyError where it is unknown
            if name.endswith("timeout") or ".timeouts." in name:
                assert dask.utils.parse_timedelta(value) >= 60
        assert dask.config.get("distributed.scheduler.allowed-failures", config=settings) == 10


def leaves(settings: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def selects(selector: Manifest, labels: Mapping[str, str]) -> bool:
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        rule["operator"] == "In" and labels.get(rule["key"]) in rule["values"]
        for rule in selector.get("matchExpressions", [])
    )


def selected(manifests: Manifests, selector: Manifest) -> set[str]:
    return {c for c, template in pods(manifests).items() if selects(selector, template["metadata"]["labels"])}


def test_budgets_hold_scheduler_and_driver_through_a_drain(manifests: Manifests) -> None:
    budgets = {name: doc["spec"] for (kind, name), doc in manifests.items() if kind == "PodDisruptionBudget"}
    assert all(budget["minAvailable"] == 1 for budget in budgets.values())
    assert sorted(component for b in budgets.values() for component in selected(manifests, b["selector"])) == [
        "fit",
        "scheduler",
    ]
    service = manifests["Service", "daskmix-scheduler"]["spec"]
    assert selected(manifests, {"matchLabels": service["selector"]}) == {"scheduler"}


def test_what_is_not_named_is_denied(manifests: Manifests) -> None:
    deny = manifests["NetworkPolicy", "daskmix-default-deny"]["spec"]
    assert selected(manifests, deny["podSelector"]) == set(pods(manifests))
    assert sorted(deny["policyTypes"]) == ["Egress", "Ingress"]
    assert not {"ingress", "egress"} & deny.keys()


def routes(manifests: Manifests) -> set[tuple[str, str, int | None]]:
    """Who may call whom at which port (None: any), as the caller's and the callee's policies agree."""
    policies = [doc["spec"] for (kind, _), doc in manifests.items() if kind == "NetworkPolicy"]

    def allowed(direction: str, peers: str) -> set[tuple[str, str, int | None]]:
        found = set()
        for policy in policies:
            for rule in policy.get(direction, []):
                for mine in selected(manifests, policy["podSelector"]):
                    for peer in rule.get(peers, []):
                        for other in selected(manifests, peer["podSelector"]):
                            for port in rule.get("ports", [{"port": None}]):
                                found.add((mine, other, port["port"]))
        return found

    inward = {(other, mine, port) for mine, other, port in allowed("ingress", "from")}
    return allowed("egress", "to") & inward


def test_pods_reach_just_the_pods_they_must(manifests: Manifests) -> None:
    assert routes(manifests) == {
        ("fit", "scheduler", 8786),
        ("worker", "scheduler", 8786),
        ("worker", "worker", None),
        ("scheduler", "worker", None),
    }


# The image


def pins(lock: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([a-z0-9.-]+)==([^ ]+)", lock.read_text(), flags=re.MULTILINE):
        found.setdefault(name, set()).add(version)
    return found


def test_the_image_runs_the_versions_that_the_tests_run() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    image, tested = pins(DEPLOY / "requirements.lock"), pins(ROOT / "requirements.lock")
    for requirement in project["dependencies"]:
        (name,) = re.findall(r"^[a-z0-9-]+", requirement)
        assert image[name] <= tested[name], f"{name}: renew deploy/requirements.lock as deploy/README.md says"
    assert "s3fs" in image
    assert "pytest" not in image


def test_the_image_finds_all_it_copies() -> None:
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    for line in re.findall(r"^COPY (?!--from)(.+)$", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert f"!{source}" in ignored, source


def test_image_and_manifests_agree_on_user_and_environment(manifests: Manifests) -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    (user,) = re.findall(r"^USER (\d+):\d+$", text, flags=re.MULTILINE)
    for component, template in pods(manifests).items():
        assert template["spec"]["securityContext"]["runAsUser"] == int(user)
        env = environment(manifests, container(manifests, component))
        for name in FOLDERS:
            assert f"{name}={env[name]}" in text


# The rehearsal


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def process(words: list[str], env: Mapping[str, str], folder: Path, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """A container's command as a process of this machine: its folders below `folder`, its log beside them."""
    home = folder / name
    home.mkdir()
    kept = {key: value for key, value in os.environ.items() if not key.startswith("DASK_")}
    moved = {**env, **{key: re.sub(r"^/tmp(?=/|$)", str(home), env[key]) for key in FOLDERS if key in env}}
    words = [str(Path(sys.executable).parent / words[0]), *words[1:]]
    with open(folder / f"{name}.log", "wb") as log:
        running = subprocess.Popen(words, env=kept | moved, cwd=home, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield running
        finally:
            end(running)


def end(running: subprocess.Popen[bytes]) -> None:
    """Ask the process to go, then make it and what it started go."""
    if running.poll() is not None:
        return
    started = psutil.Process(running.pid).children(recursive=True)
    running.terminate()
    try:
        running.wait(20)
    except subprocess.TimeoutExpired:
        running.kill()
        running.wait()
    for child in started:  # psutil knows a number that now belongs to another process
        with suppress(psutil.NoSuchProcess):
            child.kill()


def healthy(url: str, patience: float = 60) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy knows this machine's ports
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            with opener.open(url, timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    return False


@dataclass(frozen=True)
class Rehearsal:
    """Scheduler and workers of the manifests, running here."""

    folder: Path
    address: str
    probes: list[str]  # URL of each process that serves one
    running: list[subprocess.Popen[bytes]]
    fit: Callable[..., tuple[int, str]]  # runs the Job's command; its exit code and log


@pytest.fixture(scope="module")
def rehearsal(manifests: Manifests, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    folder = tmp_path_factory.mktemp("deploy")
    address = f"tcp://127.0.0.1:{free_port()}"
    probes = []

    def local(component: str, name: str, **instead: str) -> tuple[list[str], dict[str, str]]:
        """Command and environment of a container, with addresses and folders of this machine."""
        box = container(manifests, component)
        env = environment(manifests, box, **instead)
        words = command(box, env)
        (folder / "job.toml").write_text(job_file(manifests))
        swaps = {
            "/job/job.toml": str(folder / "job.toml"),
            ADDRESS: address,
            "/scratch": str(folder / name / "scratch"),
            "8786": address.rpartition(":")[2],
        }
        if "httpGet" in box.get("livenessProbe", {}):
            dashboard = f"127.0.0.1:{free_port()}"
            swaps[option(words, "--dashboard-address")] = dashboard
            probes.append(f"http://{dashboard}{box['livenessProbe']['httpGet']['path']}")
            words += ["--host", "127.0.0.1"]  # or a worker listens to the whole network
        return [swaps.get(word, word) for word in words], env

    with ExitStack() as stack:
        # All at once, as Kubernetes would: nobody waits for the scheduler to be there.
        running = [
            stack.enter_context(process(*local(component, name), folder, name))
            for component, name in (("worker", "worker-0"), ("worker", "worker-1"), ("scheduler", "scheduler"))
        ]

        def fit(name: str, **instead: str) -> tuple[int, str]:
            with process(*local("fit", name, **instead), folder, name) as driver:
                code = driver.wait(120)
            return code, (folder / f"{name}.log").read_text()

        yield Rehearsal(folder, address, probes, running, fit)


@pytest.fixture(scope="module")
def winds(rehearsal: Rehearsal, manifests: Manifests) -> Path:
    """A store with the variables that the Job asks for, its points around eight centres."""
    variables = tomllib.loads(job_file(manifests))["input"]["variables"]
    rng = np.random.default_rng(0)
    shape = (24, 8, 10)
    centre = rng.integers(0, 8, shape)
    dataset = xr.Dataset(
        {
            name: (("time", "lat", "lon"), (10 * rng.normal(size=8)[centre] + rng.normal(size=shape)).astype("float32"))
            for name in variables
        }
    )
    path = rehearsal.folder / "input.zarr"
    encoding = {name: {"chunks": (6, 8, 10)} for name in variables}
    dataset.to_zarr(path, encoding=encoding, consolidated=False)
    return path


def test_the_probes_are_answered(rehearsal: Rehearsal) -> None:
    assert len(rehearsal.probes) == 3
    assert all(healthy(url) for url in rehearsal.probes)


def test_the_rehearsal_listens_on_loopback_alone(rehearsal: Rehearsal) -> None:
    assert all(healthy(url) for url in rehearsal.probes)
    parents = [psutil.Process(started.pid) for started in rehearsal.running]
    family = [*parents, *(child for parent in parents for child in parent.children(recursive=True))]
    listening = {c.laddr.ip for p in family for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}


def test_the_job_writes_a_model(rehearsal: Rehearsal, winds: Path) -> None:
    import daskmix

    model = rehearsal.folder / "model.zarr"
    kept = rehearsal.folder / "model.checkpoint"
    code, log = rehearsal.fit("fit", INPUT=str(winds), OUTPUT=str(model), CHECKPOINT=str(kept))
    assert code == 0, log
    written = (model / "zarr.json").stat().st_mtime_ns
    code, log = rehearsal.fit("fit-again", INPUT=str(winds), OUTPUT=str(model), CHECKPOINT=str(kept))
    assert code == 0, log
    assert "pass" not in log.split("model  ")[0]  # as a driver would that starts again when all is done
    assert (model / "zarr.json").stat().st_mtime_ns == written
    assert daskmix.load(str(model)).means_.shape == (8, 2)
    with Client(rehearsal.address) as client:
        # By the scheduler's books, so that a driver that did all by itself is not taken for a success.
        done = client.run_on_scheduler(lambda dask_scheduler: set(dask_scheduler.task_prefixes))
    assert "daskmix-read" in done
    assert all(started.poll() is None for started in rehearsal.running)


def test_an_input_that_does_not_exist_is_exit_code_2(rehearsal: Rehearsal) -> None:
    model = rehearsal.folder / "nothing.zarr"
    kept = rehearsal.folder / "nothing.checkpoint"
    missing = rehearsal.folder / "missing.zarr"
    code, log = rehearsal.fit("fit-missing", INPUT=str(missing), OUTPUT=str(model), CHECKPOINT=str(kept))
    assert code == 2, log
    assert "no Zarr store at ${INPUT}" in log  # what the environment holds is not shown
    assert not model.exists()
