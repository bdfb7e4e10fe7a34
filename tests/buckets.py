"""A real S3 protocol server on the loopback, with one empty bucket."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import pyarrow.fs

KEY_ID, SECRET = "AKIATESTOFTHEENGINE", "a-secret-that-must-not-be-seen"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def bucket(log_path, port=None):
    """The environment that reaches s3://bucket; the server is ended by its pid."""
    port = port or free_port()
    with open(log_path, "w") as log:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(url, server, log_path)
            filesystem_at(url).create_dir("bucket")
            yield {
                "AWS_ENDPOINT_URL": url,
                "AWS_ACCESS_KEY_ID": KEY_ID,
                "AWS_SECRET_ACCESS_KEY": SECRET,
                "AWS_EC2_METADATA_DISABLED": "true",
            }
        finally:
            server.terminate()
            server.wait(30)


def filesystem_at(url):
    return pyarrow.fs.S3FileSystem(
        endpoint_override=url, access_key=KEY_ID, secret_key=SECRET, allow_bucket_creation=True
    )


def put(url, name, data):
    with filesystem_at(url).open_output_stream(f"bucket/{name}") as stream:
        stream.write(data)


def names_in(url, folder=""):
    selector = pyarrow.fs.FileSelector(
        f"bucket/{folder}".rstrip("/"), allow_not_found=True, recursive=True
    )
    found = filesystem_at(url).get_file_info(selector)
    return sorted(i.path.removeprefix("bucket/") for i in found if i.is_file)


def read(url, name):
    with filesystem_at(url).open_input_stream(f"bucket/{name}") as stream:
        return stream.read()


def _wait(url, server, log_path):
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.HTTPError:
            return
        except OSError:
            assert server.poll() is None, log_path.read_text()
            assert time.monotonic() < deadline, "the S3 server did not come up"
            time.sleep(0.2)


def environment(settings, **more):
    return {**os.environ, **settings, **more}
