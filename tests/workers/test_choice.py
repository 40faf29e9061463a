"""What a worker's command line may say of its server and its token."""

import argparse

import pytest
from django.core.management.base import CommandError

from workers.transports import choice
from workers.transports.database import DatabaseTransport
from workers.transports.http import HttpTransport


@pytest.mark.parametrize(
    "url",
    [
        "dts.example.org",
        "ftp://x",
        "http://",
        "http://u:p@x",
        "http://x:y",
        "http://x/?a",
        "http://[",
    ],
)
def test_a_url_that_is_none_is_refused(url):
    with pytest.raises(argparse.ArgumentTypeError, match="give a URL like"):
        choice.server_url(url)


def test_a_url_may_have_a_path():
    assert choice.server_url("https://example.org:8443/dts/") == "https://example.org:8443/dts"


def test_without_a_server_it_is_the_database(tmp_path):
    transport = choice.transport({"server": "", "token_file": None}, None)
    assert isinstance(transport, DatabaseTransport)
    with pytest.raises(CommandError, match="--token-file goes with --server"):
        choice.transport({"server": "", "token_file": tmp_path / "t"}, None)


def test_the_token_is_read_again_each_time(tmp_path):
    path = tmp_path / "token"
    path.write_text("dts_1\n")
    transport = choice.transport({"server": "http://x", "token_file": path}, None)
    assert isinstance(transport, HttpTransport)
    assert transport.token() == "dts_1"
    path.write_text("dts_2")
    assert transport.token() == "dts_2"


@pytest.mark.parametrize("text", [None, "", "two words", "a\nb", "\N{SNOWMAN}"])
def test_a_file_without_a_token_is_refused(tmp_path, text):
    path = tmp_path / "token"
    if text is not None:
        path.write_text(text)
    with pytest.raises(CommandError, match="cannot read the token"):
        choice.transport({"server": "http://x", "token_file": path}, None)


def test_the_environment_may_have_the_token(settings):
    settings.TOKEN = "dts_3"
    assert choice.transport({"server": "http://x", "token_file": None}, None).token() == "dts_3"
