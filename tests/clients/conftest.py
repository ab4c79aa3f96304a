"""Clients that are heavy to install, against real servers; `make test-clients`. Servers and questions are those of tests/e2e."""

import importlib.util
import pathlib
import sys

import pytest

E2E = pathlib.Path(__file__).resolve().parents[1] / "e2e" / "conftest.py"
_spec = importlib.util.spec_from_file_location("e2e", E2E)
e2e = importlib.util.module_from_spec(_spec)
sys.modules["e2e"] = e2e
_spec.loader.exec_module(e2e)


@pytest.fixture(scope="session")
def server():
    """With a tool parser; every run must leave it alive and idle."""
    started = e2e.Server(*e2e.BASE_FLAGS, "--tool-call-parser", "hermes", "--served-model-name", "tiny")
    yield started
    started.wait_idle(10)
    assert started.stop() == 0, started.log_text()


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """A client that wants to download something fails at once; the server on this machine is reached directly."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1,localhost")
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
