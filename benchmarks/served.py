"""The lab as a server of its own on an empty store, and the browser that opens it: to measure, photograph and test."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

ROOT = Path(__file__).parent.parent
ON_A_MAC = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", ON_A_MAC))), None)
PATIENCE = 120  # seconds in which a server answers, also on a busy machine


@contextmanager
def server(script: str | Path = "app.py", **more):
    """The lab, or another app, once it answers: its address, its process and its store. More as started_server()."""
    with started_server(script, **more) as (address, process, store):
        end = time.monotonic() + PATIENCE
        while True:
            try:
                urlopen(f"{address}/_stcore/health", timeout=5).close()
                break
            except OSError as error:
                if process.poll() is not None:
                    raise RuntimeError(f"the server ended with exit code {process.returncode}") from error
                if time.monotonic() > end:
                    raise RuntimeError(f"the server has not answered for {PATIENCE} seconds") from error
                time.sleep(0.05)
        yield address, process, store


@contextmanager
def started_server(script: str | Path = "app.py", log=None, **environment: str):
    """The same, which may not answer yet; what it says goes to the file `log`, or only its errors to the terminal."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(script), "--server.headless=true", f"--server.port={port}"]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as store:  # a worker may still be ending
        env = os.environ | {"BNLAB_STORE": store} | environment
        below = f"/{path}" if (path := env.get("STREAMLIT_SERVER_BASE_URL_PATH")) else ""
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log or subprocess.DEVNULL, stderr=log)
        try:
            yield f"http://127.0.0.1:{port}{below}", process, Path(store)
        finally:
            process.terminate()
            process.wait(30)
