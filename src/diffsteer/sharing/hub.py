"""A folder goes to the Hub: who may write where, what may leave this computer, and what each refusal means, in a sentence.

In: a folder and a `Kind`, which names the files that may be uploaded and no others. Out: a commit. This file knows neither models nor
torch; what is particular to a model is in `pushing.py`.

All talk is huggingface_hub's own client's. Going on after an interruption is its `upload_folder`'s documented behaviour: what the Hub has
already is not sent again, and the files appear in the repository together, by the commit at the end.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import HfApi, ModelInfo, SpaceInfo, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars, validate_repo_id
from huggingface_hub.utils.logging import get_verbosity, set_verbosity, set_verbosity_error

from diffsteer import __version__
from diffsteer.data.network import answers, hub_endpoint, offline
from diffsteer.errors import Mistake, Stopped

CARD = "README.md"
# What the Hub makes itself, or its web page does: neither ours nor in our way.
HARMLESS = frozenset({".gitattributes", CARD, "LICENSE"})
ABSENT = (401, 404)  # how the Hub says that there is no such repository, or none that we may see


@dataclass(frozen=True)
class Kind:
    """A kind of folder. files: patterns of what may be uploaded, as `Path.glob` has them; all else stays on this computer.

    mark: the file by which a repository is known to hold an earlier folder of this kind. sdk: of a Space.
    """

    repo_type: str
    files: tuple[str, ...]
    mark: str
    sdk: str | None = None

    def allows(self, path: str) -> bool:
        """Whether a file of this name, in words of the repository, is one of `files`."""
        return any(PurePosixPath(path).match(each) and path.count("/") == each.count("/") for each in self.files)


@dataclass(frozen=True)
class Account:
    """Whom the token belongs to, and where else it may write: the user's organizations."""

    api: HfApi
    name: str
    organizations: tuple[str, ...]

    @property
    def places(self) -> str:
        return ", ".join((self.name, *self.organizations))


@dataclass(frozen=True)
class Place:
    """A repository to write into, `owner/name`. files: what is in it, and commit: its newest; none of either where it is yet to be made."""

    account: Account
    repo: str
    private: bool
    files: tuple[str, ...] = ()
    commit: str | None = None


@dataclass(frozen=True)
class Uploaded:
    """What an upload left. changed: whether anything was new."""

    repo: str
    url: str
    commit: str
    private: bool
    changed: bool

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


# ---- what is uploaded ------------------------------------------------------------------------------------------------


def listing(folder: Path, kind: Kind) -> dict[str, int]:
    """Bytes by name of all that would be uploaded, in the order of the kind's patterns."""
    found = [path for pattern in kind.files for path in sorted(folder.glob(pattern)) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in found}


def left_here(folder: Path, kind: Kind) -> list[str]:
    """What lies in the folder and would not be uploaded: files by name, whole folders with a `/`."""
    going = listing(folder, kind)
    folders = {name.split("/")[0] for name in going if "/" in name}
    staying = []
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name in folders:
            inside = [each.relative_to(folder).as_posix() for each in sorted(path.rglob("*")) if each.is_file()]
            staying += [name for name in inside if name not in going]
        elif path.name not in going:
            staying.append(f"{path.name}/" if path.is_dir() else path.name)
    return staying


# ---- who, and where --------------------------------------------------------------------------------------------------


def check_name(repo: str) -> None:
    """Mistake for what can be no repository's name."""
    try:
        validate_repo_id(repo)
    except HFValidationError:
        raise Mistake(
            f"{repo!r} cannot be a name on the Hub: write name or owner/name, of letters, digits, - _ and . "
            "(no -- or .., no - or . at either end, at most 96 in all)."
        ) from None


def sign_in() -> Account:
    """Whose token is at hand. Mistake where there is none, where it may only read, and without network."""
    token, endpoint = get_token(), hub_endpoint()
    if token is None:
        raise Mistake(
            f"Uploading needs a token of yours, and none was found: make one that may write at {endpoint}/settings/tokens, "
            "then set HF_TOKEN or run hf auth login."
        )
    if offline():
        raise Mistake("HF_HUB_OFFLINE=1 forbids the network, so nothing can be uploaded; unset it first.")
    if not answers(endpoint):
        raise Mistake(f"No network: {endpoint} does not answer, so nothing was uploaded.")
    api = HfApi(endpoint=endpoint, token=token, library_name="diffsteer", library_version=__version__)
    with _in_sentences("asking whose token this is"):
        who = api.whoami()
    if who.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise Mistake(f"The token of {who['name']} may only read: make one that may write at {endpoint}/settings/tokens.")
    return Account(api, who["name"], tuple(each["name"] for each in who.get("orgs", ())))


def find_place(account: Account, repo: str, kind: Kind, private: bool) -> Place:
    """The repository that `repo` means, made where there is none; a bare name is in the user's own namespace. Raises Mistake."""
    repo = repo if "/" in repo else f"{account.name}/{repo}"
    with _in_sentences("looking for the repository", repo, account):
        try:
            found = account.api.repo_info(repo, repo_type=kind.repo_type)
        except HfHubHTTPError as error:
            if error.response.status_code not in ABSENT:
                raise
            account.api.create_repo(repo, repo_type=kind.repo_type, private=private, space_sdk=kind.sdk)
            return Place(account, repo, private)
    assert isinstance(found, ModelInfo | SpaceInfo)
    files = tuple(each.rfilename for each in found.siblings or ())
    place, others = Place(account, repo, bool(found.private), files, found.sha), [name for name in files if name not in HARMLESS]
    if others and kind.mark not in files and not _ours(place, kind):
        shown = ", ".join(others[:3]) + (" ..." if len(others) > 3 else "")
        raise Mistake(f"The name {repo} is taken: that repository holds something else ({shown}). Choose another name.")
    if private and not found.private:
        raise Mistake(f"{repo} is there already and is public, so --private would not hide this; choose another name, or leave it out.")
    return place


def _ours(place: Place, kind: Kind) -> bool:
    """Whether a repository without the kind's mark is known by its card: a model that diffusers alone draws has nothing else of ours."""
    return CARD in place.files and "diffsteer" in text_of(place, kind, CARD)


def text_of(place: Place, kind: Kind, name: str) -> str:
    """What a small file of the repository says. Raises Mistake, Stopped."""
    with _in_sentences(f"reading {name}", place.repo, place.account):
        path = place.account.api.hf_hub_download(place.repo, name, repo_type=kind.repo_type, revision=place.commit)
    return Path(path).read_text(encoding="utf-8", errors="replace")


# ---- uploading -------------------------------------------------------------------------------------------------------


def upload(folder: Path, place: Place, kind: Kind) -> Uploaded:
    """Uploads the folder's files of this kind, and takes out of the repository those that an earlier one had and this one has not.

    Raises Mistake for refusals, and Stopped where the connection breaks: the same call again then goes on.
    """
    api, names = place.account.api, list(listing(folder, kind))
    old = [name for name in place.files if kind.allows(name) and name not in names and name not in HARMLESS]
    with _in_sentences("uploading", place.repo, place.account), _quietly():
        commit = api.upload_folder(
            repo_id=place.repo,
            folder_path=folder,
            repo_type=kind.repo_type,
            allow_patterns=names,
            delete_patterns=old or None,
            commit_message=f"Upload with diffsteer {__version__}",
        )
    prefix = "" if kind.repo_type == "model" else f"{kind.repo_type}s/"
    return Uploaded(place.repo, f"{hub_endpoint()}/{prefix}{place.repo}", commit.oid, place.private, commit.oid != place.commit)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the client's own remarks, such as that nothing had changed, which we say ourselves, and with its bars on a terminal only."""
    before, bars = get_verbosity(), not are_progress_bars_disabled()
    set_verbosity_error()
    if bars and not sys.stderr.isatty():
        disable_progress_bars()
    try:
        yield
    finally:
        set_verbosity(before)
        if bars:
            enable_progress_bars()


# ---- refusals in sentences -------------------------------------------------------------------------------------------


@contextmanager
def _in_sentences(doing: str, repo: str = "", account: Account | None = None) -> Iterator[None]:
    """The client's errors as a Mistake, or as Stopped where the same again may do."""
    try:
        yield
    except HfHubHTTPError as error:
        raise _refused(error, doing, repo, account) from error
    except PermissionError as error:  # of Xet, the store for large files, which speaks in Python's own errors
        if error.filename is not None:
            raise
        raise _not_yours(repo, _one_line(error), account) from error
    except (HTTPError, ConnectionError, TimeoutError) as error:
        raise _broken(doing, error) from error
    except RuntimeError as error:  # the client's threads wrap what went wrong in them
        cause = error.__cause__
        if isinstance(cause, HfHubHTTPError):
            raise _refused(cause, doing, repo, account) from error
        raise _broken(doing, cause or error) from error
    except ValueError as error:  # what the Hub finds wrong with the card, or with its own answer
        raise Mistake(f"The Hub does not take this: {_one_line(error)}") from error


def _refused(error: HfHubHTTPError, doing: str, repo: str, account: Account | None) -> Mistake | Stopped:
    status, said = error.response.status_code, _one_line(error.server_message or "")
    heard = f" (it says: {said.rstrip('.')})" if said else ""
    tokens = f"{hub_endpoint()}/settings/tokens"
    if status == 401:
        return Mistake(
            f"The Hub does not know your token{heard}: make one that may write at {tokens}, then set HF_TOKEN or run hf auth login."
        )
    if status == 403:
        return _not_yours(repo, said.rstrip("."), account)
    if status == 409:
        return Mistake(f"The name {repo} is taken{heard}. Choose another, or ask its owner to let you in.")
    if status in (408, 429) or status >= 500:
        return Stopped(
            f"The Hub could not go on while {doing}: status {status}{heard}. Run the same command later; it goes on where it was."
        )
    return Mistake(f"The Hub refused while {doing}: status {status}{heard}.")


def _not_yours(repo: str, said: str, account: Account | None) -> Mistake:
    heard = f" (it says: {said})" if said else ""
    yours = "" if account is None else f"; the token of {account.name} may write at most in {account.places}"
    tokens = f"{hub_endpoint()}/settings/tokens"
    return Mistake(f"You may not write to {repo}{heard}{yours}. Give a name there, or a token with more rights ({tokens}).")


def _broken(doing: str, error: BaseException) -> Stopped:
    return Stopped(
        f"The connection to {hub_endpoint()} broke while {doing} ({_one_line(error) or type(error).__name__}). "
        "What arrived is kept there: run the same command to go on."
    )


def _one_line(words: object) -> str:
    return " ".join(str(words).split())[:300]
