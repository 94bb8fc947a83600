"""A hub of this machine: what huggingface_hub asks of a server to write a repository and read it.

huggingface_hub reads the server's address when it is imported, so whoever talks to this one is a
process of its own, which `run` starts.
"""

import base64
import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_COMMIT = "c0ffee" + "0" * 34


class Hub(ThreadingHTTPServer):
    """Repositories in memory: name to the content of its files by their names."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Answers)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.address = f"http://127.0.0.1:{self.server_port}"

    def run(self, code, *arguments, cache):
        """Run code in a process that has this hub, and an empty cache, for its hub."""
        return subprocess.run(  # noqa: S603 (our own code)
            [sys.executable, "-c", code, *arguments],
            env=self._environment(cache),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def _environment(self, cache):
        ours = {"HF_ENDPOINT": self.address, "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_of_nobody"}
        ours |= {"HF_HOME": str(cache), "HF_HUB_CACHE": str(cache / "hub")}
        theirs = {n: v for n, v in os.environ.items() if not n.lower().endswith("_proxy")}
        return theirs | ours


@contextlib.contextmanager
def running_hub():
    """Serve a hub without repositories."""
    with Hub() as hub:
        threading.Thread(target=hub.serve_forever).start()
        try:
            yield hub
        finally:
            hub.shutdown()


class _Answers(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            made = json.loads(body)
            repository = f"{made['organization']}/{made['name']}"
            self.server.repositories[repository] = {}
            self._give({"url": f"{self.server.address}/{repository}"})
        elif self.path == "/api/validate-yaml":
            self._give({"errors": [], "warnings": []})
        elif (found := re.fullmatch(r"/api/models/(.+)/preupload/main", self.path)) is not None:
            names = [file["path"] for file in json.loads(body)["files"]]
            files = [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]
            self._give({"files": files} if found[1] in self.server.repositories else None)
        elif (found := re.fullmatch(r"/api/models/(.+)/commit/main", self.path)) is not None:
            self._commit(found[1], map(json.loads, body.splitlines()))
        else:
            self._give(None)

    def _commit(self, repository, steps):
        for step in steps:
            if step["key"] == "file":
                content = base64.b64decode(step["value"]["content"])
                self.server.repositories[repository][step["value"]["path"]] = content
        url = f"{self.server.address}/{repository}/commit/{_COMMIT}"
        self._give({"commitUrl": url, "commitOid": _COMMIT, "pullRequestUrl": None})

    def do_GET(self):
        path = self.path.partition("?")[0]
        about = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/[^/]+)?", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/([^/]+)", path)
        files = self.server.repositories.get((about or file or [None, None])[1])
        if files is None:
            self._give(None)
        elif file:
            self._give(files.get(file[2]))
        elif about[2] == "tree":
            rows = [(n, len(c), hashlib.sha256(c).hexdigest()[:40]) for n, c in files.items()]
            self._give([{"type": "file", "path": n, "size": s, "oid": o} for n, s, o in rows])
        else:
            siblings = [{"rfilename": name} for name in files]
            self._give({"id": about[1], "sha": _COMMIT, "siblings": siblings, "private": False})

    def do_HEAD(self):
        self.do_GET()

    def _give(self, content):
        """Answer bytes as they are and the rest as JSON; None is a repository that is not there."""
        self.send_response(404 if content is None else 200)
        if content is None:
            self.send_header("X-Error-Code", "RepoNotFound")
            content = {"error": "Repository not found"}
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", _COMMIT)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        """Say nothing."""
