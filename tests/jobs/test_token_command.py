import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command

from jobs.models import AuditEvent, Token
from tests.api import Client

pytestmark = pytest.mark.django_db


def test_create_prints_a_token_that_works(capsys):
    call_command("token", "create", "ci", "--scopes", "read,submit", "--expires-days", "2")
    out, err = capsys.readouterr()
    token = Token.find(out.strip())
    assert token is not None
    assert (token.name, token.scopes) == ("ci", ["read", "submit"])
    assert token.expires_at
    assert out.strip() not in err
    client = Client()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {out.strip()}")
    assert client.get("/api/v1/jobs").status_code == 200
    assert AuditEvent.objects.get().action == "create token"


def test_list_shows_no_secret(capsys):
    _, text = Token.issue("ci", ["read"])
    call_command("token", "list")
    out = capsys.readouterr().out
    assert text.split("_", 2)[1] in out
    assert text.split("_", 2)[2] not in out
    assert Token.objects.get().hashed_secret not in out


def test_an_owner_and_a_worker(capsys):
    pat = User.objects.create_user("pat")
    call_command("token", "create", "w", "--scopes", "work", "--owner", "pat", "--worker", "gpu-1")
    text = capsys.readouterr().out.strip()
    token = Token.find(text)
    assert (token.owner, token.worker_name) == (pat, "gpu-1")
    call_command("token", "list")
    assert "owner pat  worker gpu-1  w" in capsys.readouterr().out
    User.objects.update(is_active=False)
    assert Token.find(text) is None
    call_command("token", "list")
    assert "disabled" in capsys.readouterr().out
    pat.delete()
    assert not Token.objects.exists()


def test_an_account_without_a_name_may_make_one(monkeypatch):
    """As in a container whose user id stands in no passwd."""
    monkeypatch.setattr("os.getuid", lambda: 987_654)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    call_command("token", "create", "ci")
    assert AuditEvent.objects.get().actor == ""


def test_revoke(capsys):
    token, text = Token.issue("ci", ["read"])
    call_command("token", "revoke", token.prefix)
    assert Token.find(text) is None
    call_command("token", "list")
    assert "revoked" in capsys.readouterr().out
    assert AuditEvent.objects.get().target == f"token {token.pk}"


@pytest.mark.parametrize(
    "arguments",
    [
        ["create", "x", "--scopes", "root"],
        ["create", "x", "--scopes", ","],
        ["create", "x", "--expires-days", "0"],
        ["create", "x", "--expires-days", "nan"],
        ["create", "x", "--expires-days", "1e9"],
        ["create", "x" * 101],
        ["create", ""],
        ["create", "a\x00b"],
        ["create", "\udcff"],
        ["create", "x", "--owner", "nobody"],
        ["create", "x", "--owner", "\udcff"],
        ["create", "x", "--worker", "w1"],
        ["create", "x", "--scopes", "work", "--worker", "a b"],
        ["create", "x", "--scopes", "work", "--worker", ""],
        ["create", "x", "--scopes", "work", "--worker", "w" * 101],
        ["revoke", "00000000"],
        ["revoke", "\udcff"],
        [],
    ],
)
def test_nonsense_is_refused_with_status_2(arguments):
    with pytest.raises(CommandError) as refusal:
        call_command("token", *arguments)
    assert refusal.value.returncode == 2
    assert not Token.objects.exists()


def test_a_list_of_names_is_safe_for_a_terminal(capsys):
    Token.issue("a\x1b[31m\nb", ["read"])
    call_command("token", "list")
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith(r"a\x1b[31m\nb")
