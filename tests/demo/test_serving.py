"""The demo's web server, as a stranger would try it: `.ci/extra demo` has Gradio."""

import concurrent.futures
import dataclasses
import importlib.util
import json
import re
import signal
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairkd_jax.demo.uploads import MAX_UPLOAD_BYTES
from fairkd_jax.runs.dataset import open_data, parse_recorded_data
from fairkd_jax.runs.folder import read_run_config
from tests.demo.test_demo import make_bomb
from tests.programs import command, environment

pytestmark = pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="Gradio is not installed")
PORT = 7889
ADDRESS = f"http://127.0.0.1:{PORT}"


@pytest.fixture(scope="module")
def served(kept, data_directory):
    """A demo behind a proxy that does not answer: it needs none."""
    proxies = {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
    process = subprocess.Popen(
        command("scripts/demo.py", kept / "rkd_adv", "--port", PORT),
        env=environment(FAIRKD_DATA=data_directory, **proxies),
        stdout=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if line.startswith("Open"):
            break
    yield process
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=20)
    assert (process.returncode, rest) == (0, "")


def get_code(path):
    try:
        with urllib.request.urlopen(f"{ADDRESS}{path}") as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def connect():
    from gradio_client import Client

    return Client(ADDRESS, verbose=False)


def classify(client, path):
    from gradio_client import handle_file

    return client.predict(handle_file(str(path)), api_name="/classify")


def test_a_test_image_gets_the_answers_of_its_evaluation(served, kept, data_directory, tmp_path):
    saved = read_run_config(kept / "rkd_adv")
    data = dataclasses.replace(parse_recorded_data(saved), directory=data_directory)
    split = open_data(data).split("test")
    Image.fromarray(split.read_images(np.array([5]))[0]).save(tmp_path / "five.png")
    _, truth, *answers = classify(connect(), tmp_path / "five.png")
    assert "unknown" in truth
    with np.load(kept / "rkd_adv" / "predictions" / "test.npz") as own:
        expected = {name: own[f"{name}_probabilities"][5] for name in ("teacher", "student")}
    for name, answer in (("teacher", answers[0]), ("student", answers[4])):
        found = {entry["label"]: entry["confidence"] for entry in answer["confidences"]}
        for label, confidence in found.items():
            place = saved.data_info["class_names"].index(label)
            assert confidence == pytest.approx(float(expected[name][place]), abs=2e-4)


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"hello", "not an image"), (make_bomb(), "damaged or too large")],
    ids=["text", "bomb"],
)
def test_what_is_no_image_gets_a_message(served, tmp_path, data, reason):
    (tmp_path / "upload.png").write_bytes(data)
    with pytest.raises(Exception, match=reason):
        classify(connect(), tmp_path / "upload.png")
    assert get_code("/") == 200


def test_a_file_that_is_too_large_is_refused_before_it_is_read(served, tmp_path):
    (tmp_path / "large.png").write_bytes(bytes(MAX_UPLOAD_BYTES * 5))
    with pytest.raises(Exception, match=r"413|exceeds|size"):
        classify(connect(), tmp_path / "large.png")
    assert get_code("/") == 200


def ask_for(path):
    """What the server answers to a request that names a file of its own machine, past the page."""
    data = json.dumps({"data": [{"path": str(path), "meta": {"_type": "gradio.FileData"}}]}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{ADDRESS}/gradio_api/call/classify", data, headers)
    try:
        with urllib.request.urlopen(request) as answer:
            event = json.load(answer)["event_id"]
        with urllib.request.urlopen(f"{ADDRESS}/gradio_api/call/classify/{event}") as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()


def test_files_of_this_machine_are_not_given_out(served, kept, tmp_path):
    run = kept / "rkd_adv"
    absolute = Path("README.md").absolute()
    for name in ("config.json", "/etc/passwd", run / "config.json", "../README.md", absolute):
        assert get_code(f"/gradio_api/file={name}") in (403, 404), name
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "private.png")
    for path in (tmp_path / "private.png", f"{ADDRESS}/static/img/logo.svg", "file:///etc/passwd"):
        assert "event: error" in ask_for(path), path


def test_twenty_at_once_get_an_answer_or_a_message(served, tmp_path):
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "a.png")
    clients = [connect() for _ in range(20)]

    def ask(client):
        try:
            return len(classify(client, tmp_path / "a.png"))
        except Exception as error:
            return str(error)

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        found = list(pool.map(ask, clients))
    assert all(answer == 8 or "queue" in str(answer).lower() for answer in found), found
    assert found.count(8) >= 8
    assert get_code("/") == 200


def test_nothing_on_the_page_is_loaded_from_elsewhere(served):
    def read(path):
        with urllib.request.urlopen(f"{ADDRESS}{path}") as answer:
            return answer.read().decode()

    assert json.loads(read("/config"))["analytics_enabled"] is False
    assert not re.findall(r"""url\(["']?https?:""", read("/theme.css"))
    loaded = re.findall(r"""<(?:script|link|img)[^>]*?(?:src|href)=["']?([^"' >]+)""", read("/"))
    assert len(loaded) >= 2
    assert [address for address in loaded if "//" in address and not address.startswith(ADDRESS)] == []
