"""The shipping files agree with each other and with what the program reads."""

import re
import shlex
import subprocess
import sys
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from django.core.management import get_commands

from dtsproject.conf import Conf

ROOT = Path(__file__).resolve().parent.parent
MANIFESTS = [  # in the order in which the README applies them
    "namespace.yaml",
    "configmap.yaml",
    "postgres-statefulset.yaml",
    "orchestrator-deployment.yaml",
    "scheduler-deployment.yaml",
    "worker-deployment.yaml",
]
# Read by others than DTS: Python, Django's createsuperuser, PostgreSQL's image, Kubernetes.
READ_ELSEWHERE = r"PATH|PYTHON\w+|DJANGO_SUPERUSER_\w+|POSTGRES_\w+|PGDATA|POD_NAME"


def text(name):
    return (ROOT / name).read_text()


def compose():
    return yaml.safe_load(text("docker-compose.yml"))


def resources():
    return [doc for name in MANIFESTS for doc in yaml.safe_load_all(text(f"k8s/{name}"))]


def pods():
    kinds = ("Deployment", "StatefulSet")
    return {
        r["metadata"]["name"]: r["spec"]["template"]["spec"]
        for r in resources()
        if r["kind"] in kinds
    }


def containers(pod):
    return [*pod.get("initContainers", []), *pod["containers"]]


def ours():
    """The containers that run DTS: of compose by service, of Kubernetes by Deployment."""
    found = [(n, s["command"]) for n, s in compose()["services"].items() if "command" in s]
    for pod in pods().values():
        found += [(c["name"], c["command"]) for c in containers(pod) if "command" in c]
    return found


def read_by_dts():
    names = set(re.findall(r'env\.\w+\("(\w+)"', text("dtsproject/settings.py")))
    names |= set(re.findall(r'environ\.get\("(\w+)"', text("gunicorn.conf.py")))
    return names | {f"DTS_{field.name.upper()}" for field in fields(Conf)}


def given_to_dts():
    names = set(re.findall(r"^(?:ENV)?\s+(\w+)=\S+(?: \\)?$", text("Dockerfile"), re.M))
    for service in compose()["services"].values():
        names |= set(service.get("environment", {}))
    for resource in resources():
        names |= set(resource.get("data", {})) | set(resource.get("stringData", {}))
    for pod in pods().values():
        names |= {e["name"] for c in containers(pod) for e in c.get("env", [])}
    return names


def test_every_variable_that_is_given_is_read():
    assert {"ORCH_HOST", "DTS_STATE_DIR", "DATABASE_URL", "SECRET_KEY"} <= given_to_dts()
    unread = {n for n in given_to_dts() - read_by_dts() if not re.fullmatch(READ_ELSEWHERE, n)}
    assert unread == set()


def test_env_example_explains_exactly_what_compose_uses():
    used = set(re.findall(r"(?<!\$)\$\{(\w+)", text("docker-compose.yml")))
    lines = text(".env.example").splitlines()
    named = {
        line.partition("=")[0]: above for above, line in pairwise(lines) if re.match(r"\w+=", line)
    }
    assert set(named) == used
    assert [name for name, above in named.items() if not above.startswith("# ")] == []


def test_secrets_in_the_examples_say_that_they_are_demos():
    values = dict(re.findall(r"^(\w+)=(.*)$", text(".env.example"), re.M))
    secrets = [v for k, v in values.items() if re.search("PASSWORD|KEY", k)]
    for resource in resources():
        secrets += resource.get("stringData", {}).values()
    assert len(secrets) == 6
    assert all("demo" in secret and "change" in secret for secret in secrets)


def test_manifests_are_those_that_are_applied():
    listed = yaml.safe_load(text("k8s/kustomization.yaml"))["resources"]
    assert listed == MANIFESTS
    assert {p.name for p in (ROOT / "k8s").iterdir()} == {*MANIFESTS, "kustomization.yaml"}
    kinds = {(r["kind"], r["metadata"]["name"]) for r in resources()}
    assert {
        ("StatefulSet", "postgres"),
        ("Service", "orchestrator"),
        ("Deployment", "orchestrator"),
        ("Deployment", "scheduler"),
        ("Deployment", "recovery"),
        ("Deployment", "worker"),
    } <= kinds


def test_everything_lives_in_the_namespace_dts():
    for resource in resources():
        if resource["kind"] == "Namespace":
            assert resource["metadata"]["name"] == "dts"
        else:
            assert resource["metadata"]["namespace"] == "dts"


def test_selectors_find_their_pods():
    templates = [r["spec"]["template"] for r in resources() if "template" in r.get("spec", {})]
    labels = [template["metadata"]["labels"] for template in templates]
    assert len(labels) == 5
    for resource in resources():
        spec = resource.get("spec", {})
        for key in ("selector", "podSelector"):
            selector = spec.get(key) or {}
            wanted = selector.get("matchLabels", selector)
            assert any(wanted.items() <= found.items() for found in labels), resource["metadata"]


def test_one_version_of_the_image():
    version = re.search(r'^version = "(.+)"', text("pyproject.toml"), re.M)[1]
    images = {s["image"] for s in compose()["services"].values()}
    assert images == {f"dts:{version}", "${POSTGRES_IMAGE:-postgres:17}"}
    assert {c["image"] for p in pods().values() for c in containers(p)} == {
        f"dts:{version}",
        "postgres:17",
    }


def test_base_images_have_one_default():
    wanted = re.search(r"^ARG PYTHON_IMAGE=(.+)$", text("Dockerfile"), re.M)[1]
    build = compose()["services"]["migrate"]["build"]
    assert build["args"]["PYTHON_IMAGE"] == f"${{PYTHON_IMAGE:-{wanted}}}"
    values = dict(re.findall(r"^(\w+)=(.*)$", text(".env.example"), re.M))
    assert values["PYTHON_IMAGE"] == wanted
    assert values["POSTGRES_IMAGE"] == "postgres:17"


def test_compose_publishes_the_orchestrator_alone_and_on_loopback():
    ports = {n: s["ports"] for n, s in compose()["services"].items() if "ports" in s}
    assert ports == {"orchestrator": ["127.0.0.1:${ORCH_PORT:-8080}:8080"]}


def test_anonymous_access_is_off_unless_env_says_otherwise():
    environment = compose()["services"]["orchestrator"]["environment"]
    assert environment["DTS_ANONYMOUS_ACCESS"] == "${DTS_ANONYMOUS_ACCESS:-off}"
    config = next(r for r in resources() if r["kind"] == "ConfigMap")
    assert config["data"]["DTS_ANONYMOUS_ACCESS"] == "off"


def test_compose_confines_every_service():
    for name, service in compose()["services"].items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "healthcheck" in service, name


def test_kubernetes_confines_every_container():
    for name, pod in pods().items():
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert "memory" in container["resources"]["limits"], name
        assert all("livenessProbe" in c for c in pod["containers"]), name


def test_liveness_leaves_the_database_alone():
    probe = pods()["orchestrator"]["containers"][0]["livenessProbe"]
    assert probe["httpGet"]["path"] == "/healthz"
    config = next(r for r in resources() if r["kind"] == "ConfigMap")
    for host in (h["value"] for h in probe["httpGet"]["httpHeaders"]):
        assert host in config["data"]["ALLOWED_HOSTS"].split(",")


def test_a_drain_ends_before_patience_does():
    worker = compose()["services"]["worker"]
    kill_grace = Conf().kill_grace_seconds
    drain = float(worker["environment"]["DTS_DRAIN_SECONDS"])
    assert float(worker["stop_grace_period"].removesuffix("s")) > drain + kill_grace
    config = next(r for r in resources() if r["kind"] == "ConfigMap")
    drain = float(config["data"]["DTS_DRAIN_SECONDS"])
    assert pods()["worker"]["terminationGracePeriodSeconds"] > drain + kill_grace


def test_a_restarted_worker_finds_its_state():
    state = re.search(r"DTS_STATE_DIR=(\S+)", text("Dockerfile"))[1]
    assert state in compose()["services"]["worker"]["volumes"]
    mounts = pods()["worker"]["containers"][0]["volumeMounts"]
    assert state in [mount["mountPath"] for mount in mounts]


def test_every_command_exists():
    started = set()
    for _, command in ours():
        words = shlex.split(" ".join(command), comments=True)
        started |= {b for a, b in pairwise(words) if a == "manage.py"}
    assert started >= {"migrate", "run_scheduler", "run_recovery", "run_worker"}
    assert started <= set(get_commands())


def test_image_takes_code_and_nothing_else():
    kept = {line[1:].rstrip("/") for line in text(".dockerignore").splitlines() if line[0] == "!"}
    assert "*" in text(".dockerignore").splitlines()
    assert kept == {"manage.py", "gunicorn.conf.py", "requirements.txt", "templates"} | {
        "dts_client", "dtsproject", "jobs", "workers", "scheduling"
    }  # fmt: skip


def test_ci_runs_the_tests_on_every_supported_python():
    jobs = yaml.safe_load(text(".github/workflows/ci.yml"))["jobs"]
    assert jobs["test"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13", "3.14"]
    assert "make test" in [step.get("run") for step in jobs["test"]["steps"]]


@pytest.mark.parametrize("host", ["192.0.2.1", "", "no-such-host.invalid"])
def test_gunicorn_refuses_anonymous_access_from_afar(host, tmp_path):
    with gunicorn(tmp_path, DTS_ANONYMOUS_ACCESS="loopback", ORCH_HOST=host) as server:
        _, said = server.communicate(timeout=60)
    assert server.returncode == 2
    assert "needs ORCH_HOST to be a loopback address" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("access", "host"),
    [("loopback", "127.0.0.1"), ("loopback", "localhost"), ("off", "0.0.0.0")],  # noqa: S104
)
def test_gunicorn_starts_where_strangers_are_kept_out(access, host, tmp_path):
    with gunicorn(tmp_path, DTS_ANONYMOUS_ACCESS=access, ORCH_HOST=host) as server:
        said = next((line for line in server.stderr if "Listening at" in line), "")
        server.terminate()
        server.communicate(timeout=60)
    assert "Listening at: http://" in said


def test_gunicorn_refuses_missing_settings_in_one_line(tmp_path):
    with gunicorn(tmp_path, SECRET_KEY="") as server:
        _, said = server.communicate(timeout=60)
    assert (server.returncode, said.count("\n")) == (2, 1)
    assert said.startswith("gunicorn: Set SECRET_KEY")


def gunicorn(folder, **environment):
    environment = {
        "DTS_LOCAL": "0",
        "DTS_STATE_DIR": str(folder),
        "DATABASE_URL": "postgresql:///unused",
        "ALLOWED_HOSTS": "localhost",
        "SECRET_KEY": "of-this-test",
        "ORCH_PORT": "0",
        "WEB_CONCURRENCY": "1",
        **environment,
    }
    return subprocess.Popen(
        [sys.executable, "-m", "gunicorn"],
        cwd=ROOT, env=environment, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
