"""A small Hub on this computer: it speaks what huggingface_hub's client speaks when it uploads and downloads, and fails when it is told to.

Written after the client (2.4): sign-in, making repositories, cards, preupload, commits, listings, downloads. Large files come by LFS with
basic transfers, or by Xet, the client's choice unless HF_HUB_DISABLE_XET=1. Of Xet's store it knows the first version, and files that do
not compress and fit into one block.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

from diffsteer.sharing.licences import KNOWN

LARGE = (".safetensors", ".png")  # what goes by LFS
KINDS = {"models": "model", "spaces": "space"}
ID = r"(?P<id>[^/]+/[^/]+?)"
REPO = rf"/api/(?P<kind>models|spaces)/{ID}"
FILES = rf"/(?P<kind>spaces/)?{ID}"


@dataclass
class User:
    name: str
    role: str = "write"
    orgs: tuple[str, ...] = ()


@dataclass
class Repo:
    """commits: their ids, the newest last. sdk: of a Space."""

    private: bool = False
    sdk: str | None = None
    files: dict[str, bytes] = field(default_factory=lambda: {".gitattributes": b"*.safetensors filter=lfs\n"})
    commits: list[str] = field(default_factory=lambda: ["0" * 40])

    @property
    def sha(self) -> str:
        return self.commits[-1]


@dataclass
class Failure:
    """The next `times` requests that match end so: with a status, or, where it is None, by a connection that breaks."""

    method: str
    path: str
    status: int | None
    said: str = ""
    times: int = 1


class Hub:
    """What the server knows. log: every request, `METHOD path`. received: bytes of large files that came, by LFS or Xet."""

    def __init__(self) -> None:
        self.users: dict[str, User] = {"hf_alice": User("alice", orgs=("club",))}
        self.repos: dict[tuple[str, str], Repo] = {}
        self.large: dict[str, bytes] = {}
        self.failures: list[Failure] = []
        self.log: list[str] = []
        self.received = 0
        self.endpoint = ""

    def fail(self, method: str, path: str, status: int | None = None, said: str = "", times: int = 1) -> None:
        self.failures.append(Failure(method, path, status, said, times))

    def asked(self, words: str) -> int:
        """How many requests had these words in them."""
        return sum(words in line for line in self.log)

    def failing(self, method: str, path: str) -> Failure | None:
        for failure in self.failures:
            if failure.times and failure.method == method and re.search(failure.path, path):
                failure.times -= 1
                return failure
        return None


class Refused(Exception):
    def __init__(self, status: int, said: str, code: str = "") -> None:
        super().__init__(said)
        self.status, self.said, self.code = status, said, code


@contextmanager
def serving() -> Iterator[Hub]:
    """A Hub at `hub.endpoint` for as long as the block lasts."""
    hub = Hub()
    handler = type("Handler", (Talk,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Talk(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    # ---- in and out --------------------------------------------------------------------------------------------------

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.log.append(f"{self.command} {path}")
        length = int(self.headers.get("Content-Length") or 0)
        failure = self.hub.failing(self.command, path)
        if failure is not None and failure.status is None:
            self.rfile.read(length // 2)
            self.close_connection = True
            self.connection.close()
            return
        body = self.rfile.read(length)
        try:
            if failure is not None and failure.status is not None:
                raise Refused(failure.status, failure.said)
            for method, pattern, answer in ANSWERS:
                match = re.fullmatch(pattern, path)
                if match and self.command in method.split():
                    answer(self, body, **match.groupdict())
                    return
            raise Refused(404, f"no such thing: {self.command} {path}")
        except Refused as refused:
            more = {"X-Error-Message": refused.said} | ({"X-Error-Code": refused.code} if refused.code else {})
            self._send(json.dumps({"error": refused.said}).encode(), refused.status, more)

    def _send(self, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Type": "application/json", **(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value: object) -> None:
        self._send(json.dumps(value).encode())

    # ---- who ---------------------------------------------------------------------------------------------------------

    def _user(self) -> User | None:
        return self.hub.users.get(self.headers.get("Authorization", "").removeprefix("Bearer "))

    def _writer(self, owner: str) -> None:
        user = self._user()
        if user is None:
            raise Refused(401, "Invalid username or password.")
        if user.role == "read" or owner not in (user.name, *user.orgs):
            raise Refused(403, f"You don't have the rights to write to the namespace {owner}")

    def _repo(self, kind: str | None, name: str) -> Repo:
        repo = self.hub.repos.get((KINDS[(kind or "models").strip("/")], name))
        user = self._user()
        if repo is None or (repo.private and (user is None or name.split("/")[0] not in (user.name, *user.orgs))):
            raise Refused(404, "Repository not found", "RepoNotFound")
        return repo

    # ---- what it answers ---------------------------------------------------------------------------------------------

    def root(self, body: bytes) -> None:
        self._send(b"")

    def whoami(self, body: bytes) -> None:
        user = self._user()
        if user is None:
            raise Refused(401, "Invalid credentials in Authorization header")
        token = {"accessToken": {"displayName": "laptop", "role": user.role}}
        self._json({"type": "user", "name": user.name, "orgs": [{"name": name} for name in user.orgs], "auth": token})

    def create(self, body: bytes) -> None:
        asked, user = json.loads(body), self._user()
        owner = asked.get("organization") or (user.name if user else "")
        self._writer(owner)
        kind, name = asked.get("type") or "model", f"{owner}/{asked['name']}"
        if (kind, name) in self.hub.repos:
            raise Refused(409, f"You already created this {kind} repo: {name}")
        self.hub.repos[kind, name] = Repo(private=asked.get("visibility") == "private", sdk=asked.get("sdk"))
        self._json({"url": f"{self.hub.endpoint}/{'' if kind == 'model' else f'{kind}s/'}{name}", "name": name})

    def info(self, body: bytes, kind: str, id: str, revision: str | None = None) -> None:
        repo = self._repo(kind, id)
        names = [{"rfilename": name} for name in sorted(repo.files)]
        self._json({"_id": "1", "id": id, "modelId": id, "sha": repo.sha, "private": repo.private, "siblings": names, "tags": []})

    def tree(self, body: bytes, kind: str, id: str, revision: str) -> None:
        files = sorted(self._repo(kind, id).files.items())
        self._json([{"type": "file", "path": name, "size": len(data), **oids(name, data)} for name, data in files])

    def validate(self, body: bytes) -> None:
        asked = json.loads(body)
        found = card_errors(asked["content"], asked["repoType"])
        answer = json.dumps({"errors": [{"message": each} for each in found], "warnings": []}).encode()
        self._send(answer, 400 if found else 200)

    def preupload(self, body: bytes, kind: str, id: str, revision: str) -> None:
        repo = self._repo(kind, id)
        self._writer(id.split("/")[0])
        files = []
        for each in json.loads(body)["files"]:
            name = each["path"]
            there = repo.files.get(name)
            files.append({"path": name, "uploadMode": "lfs" if name.endswith(LARGE) else "regular", "shouldIgnore": False})
            if there is not None:
                large = oids(name, there).get("lfs")
                files[-1]["oid"] = large["oid"] if large else oids(name, there)["oid"]
        self._json({"files": files})

    def batch(self, body: bytes, kind: str | None, id: str) -> None:
        self._repo(kind, id)
        self._writer(id.split("/")[0])
        objects: list[dict[str, Any]] = []
        for each in json.loads(body)["objects"]:
            upload = {"upload": {"href": f"{self.hub.endpoint}/lfs/{each['oid']}"}, "verify": {"href": f"{self.hub.endpoint}/lfs-verify"}}
            objects.append({**each} if each["oid"] in self.hub.large else {**each, "actions": upload})
        self._json({"transfer": "basic", "objects": objects})

    def put(self, body: bytes, oid: str) -> None:
        self.hub.received += len(body)
        if hashlib.sha256(body).hexdigest() != oid:
            raise Refused(400, "this is not what it says it is")
        self.hub.large[oid] = body
        self._send(b"")

    def verify(self, body: bytes) -> None:
        asked = json.loads(body)
        if len(self.hub.large.get(asked["oid"], b"")) != asked["size"]:
            raise Refused(400, "not here")
        self._json({})

    def xet_token(self, body: bytes, kind: str, id: str, revision: str) -> None:
        self._repo(kind, id)
        self._writer(id.split("/")[0])
        self._json({"accessToken": "xet", "exp": int(time.time()) + 3600, "casUrl": f"{self.hub.endpoint}/cas"})

    def xorb(self, body: bytes, hash: str) -> None:
        """A block of chunks, each after eight bytes: version, its length in three, how it is compressed, its full length in three."""
        self.hub.received += len(body)
        data, at = b"", 0
        while at + 8 <= len(body) and body[at] == 0:
            length, how, whole = (
                int.from_bytes(body[at + 1 : at + 4], "little"),
                body[at + 4],
                int.from_bytes(body[at + 5 : at + 8], "little"),
            )
            if how or length != whole:
                raise Refused(400, "this small Hub does not decompress")
            data, at = data + body[at + 8 : at + 8 + length], at + 8 + length
        self.hub.large[hashlib.sha256(data).hexdigest()] = data
        self._json({"was_inserted": True})

    def shards(self, body: bytes) -> None:
        self._json({"result": 1})

    def commit(self, body: bytes, kind: str, id: str, revision: str) -> None:
        repo = self._repo(kind, id)
        self._writer(id.split("/")[0])
        header, *changes = [json.loads(line) for line in body.splitlines()]
        files = dict(repo.files)
        for change in changes:
            value = change["value"]
            if change["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif change["key"] == "lfsFile":
                if value["oid"] not in self.hub.large:
                    raise Refused(400, f"{value['path']} was not uploaded")
                files[value["path"]] = self.hub.large[value["oid"]]
            elif change["key"] == "deletedFile":
                del files[value["path"]]
            else:
                raise Refused(400, f"what is a {change['key']}?")
        assert header["value"]["summary"]
        repo.files = files
        repo.commits.append(hashlib.sha1(body + repo.sha.encode()).hexdigest())
        self._json({"commitUrl": f"{self.hub.endpoint}/{id}/commit/{repo.sha}", "commitOid": repo.sha, "pullRequestUrl": None})

    def resolve(self, body: bytes, kind: str | None, id: str, revision: str, name: str) -> None:
        repo = self._repo(kind, id)
        data = repo.files.get(name)
        if data is None:
            raise Refused(404, "Entry not found", "EntryNotFound")
        self._send(
            data, 200, {"ETag": f'"{oids(name, data)["oid"]}"', "X-Repo-Commit": repo.sha, "Content-Type": "application/octet-stream"}
        )


ANSWERS = [
    ("GET HEAD", "/", Talk.root),
    ("GET", "/api/whoami-v2", Talk.whoami),
    ("POST", "/api/repos/create", Talk.create),
    ("POST", "/api/validate-yaml", Talk.validate),
    ("GET", rf"{REPO}(/revision/(?P<revision>[^/]+))?", Talk.info),
    ("GET", rf"{REPO}/tree/(?P<revision>[^/]+)", Talk.tree),
    ("POST", rf"{REPO}/preupload/(?P<revision>[^/]+)", Talk.preupload),
    ("POST", rf"{REPO}/commit/(?P<revision>[^/]+)", Talk.commit),
    ("GET", rf"{REPO}/xet-write-token/(?P<revision>[^/]+)", Talk.xet_token),
    ("POST", r"/cas/v1/xorbs/default/(?P<hash>\w+)", Talk.xorb),
    ("POST", "/cas/v1/shards", Talk.shards),
    ("POST", rf"{FILES}\.git/info/lfs/objects/batch", Talk.batch),
    ("PUT", r"/lfs/(?P<oid>\w+)", Talk.put),
    ("POST", "/lfs-verify", Talk.verify),
    ("GET HEAD", rf"{FILES}/resolve/(?P<revision>[^/]+)/(?P<name>.+)", Talk.resolve),
]


def oids(name: str, data: bytes) -> dict[str, Any]:
    """How git and LFS call what is in a file."""
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    large = {"lfs": {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}} if name.endswith(LARGE) else {}
    return {"oid": blob, **large}


def card_errors(content: str, kind: str) -> list[str]:
    """What the Hub finds wrong with a card: `license`, `datasets`, `tags` and `model-index` are looked at, and a Space's `sdk`.

    After the Hub's own description (hub-docs, modelcard.md and spaces-config-reference.md).
    """
    match = re.match(r"^(\s*---(?:\r\n|\r|\n))([\S\s]*?)((?:\r\n|\r|\n)---[ \t]*(\r\n|\n|$))", content)
    try:
        data = yaml.safe_load(match[2]) if match else {}
    except yaml.YAMLError as error:
        return [f"YAML: {error}"]
    if not isinstance(data, dict):
        return ["metadata must be an object"]
    found = []
    if "license" in data and data["license"] not in KNOWN:
        found.append(f'"license" must be one of the known ones, not {data["license"]}')
    if data.get("license") == "other" and not re.fullmatch(r"[a-z0-9-.]+", data.get("license_name", "")):
        found.append('"license_name" is required with license other')
    for key in ("tags", "datasets"):
        if key in data and not (isinstance(data[key], list) and all(isinstance(each, str) and each for each in data[key])):
            found.append(f'"{key}" must be a list of strings')
    for key in ("library_name", "pipeline_tag"):
        if key in data and not isinstance(data[key], str):
            found.append(f'"{key}" must be a string')
    for place, model in enumerate(data.get("model-index", [])):
        found += [] if isinstance(model.get("name"), str) and model["name"] else [f'"model-index[{place}].name" is required']
        for number, result in enumerate(model["results"]):
            where = f"model-index[{place}].results[{number}]"
            found += [] if isinstance(result.get("task", {}).get("type"), str) else [f'"{where}.task.type" is required']
            for key in ("type", "name"):
                found += [] if isinstance(result.get("dataset", {}).get(key), str) else [f'"{where}.dataset.{key}" is required']
            for metric in result.get("metrics", []):
                whole = isinstance(metric.get("type"), str) and metric.get("value") is not None
                found += [] if whole else [f'"{where}.metrics" need type and value']
    if kind == "space" and data.get("sdk") not in ("gradio", "docker", "static"):
        found.append('"sdk" must be one of gradio, docker, static')
    return found
