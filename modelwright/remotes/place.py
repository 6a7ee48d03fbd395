"""URLs of remotes → where the objects are, and how that is reached.

    s3://bucket/models                               s3://http://localhost:9000/bucket/models (MinIO and the like)
    gs://bucket/models                               az://container/models, as://account/container/models (Azure)
    file:///srv/models, /srv/models                  a folder, which need not be on this machine's disk

They are the URLs of tritonserver's --model-repository, but for az://. Credentials are those that the store's own
library finds: in the environment, in profiles, on the machine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from modelwright.errors import RemoteError

# Scheme as it is written → the scheme that it stands for here.
_SCHEMES = {"s3": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "abfss": "az", "as": "as", "file": "file"}
_EXTRAS = {"s3": ("s3", "s3fs"), "gs": ("gcs", "gcsfs"), "az": ("azure", "adlfs")}  # → the extra, and its module
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_HOST = re.compile(r"((?:https?://)?[0-9A-Za-z.-]+:[0-9]+|https?://[0-9A-Za-z.-]+)/(.*)", re.DOTALL)
_ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_AZURE_HOST = ".blob.core.windows.net"


@dataclass(frozen=True)
class RemotePlace:
    url: str  # as tritonserver takes it: one spelling for each place
    scheme: str  # "s3", "gs", "az" or "file"
    root: str  # bucket and prefix, or a folder's path
    options: Mapping[str, str] = field(default_factory=dict)  # of the library

    @property
    def bucket(self) -> str:
        return self.root.partition("/")[0]

    def of(self, name: str) -> str:
        """An object as messages show it."""
        return f"{self.url}/{name}"


def served_as(url: str) -> str:
    """What tritonserver takes for a remote's URL: that of Azure names the account, too."""
    account = os.environ.get("AZURE_STORAGE_ACCOUNT_NAME", "ACCOUNT")
    return f"as://{account}/{url.removeprefix('az://')}" if url.startswith("az://") else url


def place_of(url: str, endpoint_url: str | None = None) -> RemotePlace:
    """Raises RemoteError for what is not the URL of a place, and for one whose library is not installed."""
    found = _URL.fullmatch(url)
    if found is None:
        return _folder(url)
    written, rest = found.groups()
    scheme = _SCHEMES.get(written.lower())
    if scheme is None:
        raise RemoteError(
            f"{url}: unknown scheme '{written}'", "s3://, gs:// and az:// are known, file:// and plain paths"
        )
    if scheme == "file":
        return _folder(rest, url)
    if "@" in rest.partition("/")[0]:
        hint = "give credentials as the store's own library reads them: the environment, or a profile"
        raise RemoteError(f"{scheme}://…: a bucket cannot have '@': credentials do not belong in a URL", hint)
    if endpoint_url and scheme != "s3":
        raise RemoteError(f"{url}: --endpoint-url is for s3:// alone", "leave it out")
    place = _azure(url, rest) if scheme in ("as", "az") else _bucket(url, scheme, rest, endpoint_url)
    _check_installed(place)
    return place


def _folder(path: str, url: str = "") -> RemotePlace:
    if not path or (url and not path.startswith("/")):
        raise RemoteError(f"{url or '(empty)'}: names no folder", "write file:///srv/models, or /srv/models")
    absolute = str(Path(path).expanduser().absolute())
    return RemotePlace(absolute, "file", absolute)


def _bucket(url: str, scheme: str, rest: str, endpoint_url: str | None) -> RemotePlace:
    endpoint = endpoint_url
    if scheme == "s3" and (found := _HOST.fullmatch(rest)):
        own = found[1] if "://" in found[1] else f"http://{found[1]}"  # as tritonserver reads it
        if endpoint_url and endpoint_url.rstrip("/") != own:
            raise RemoteError(f"{url}: names another server than --endpoint-url {endpoint_url}", "give one of them")
        endpoint, rest = own, found[2]
    if scheme == "s3" and not endpoint:
        endpoint = next((os.environ[name] for name in _ENDPOINT_VARIABLES if os.environ.get(name)), None)
    if endpoint and not re.match("https?://", endpoint):
        raise RemoteError(f"--endpoint-url {endpoint}: is no URL", "such as --endpoint-url http://localhost:9000")
    root = _checked(url, rest)
    if endpoint:
        endpoint = endpoint.rstrip("/")
        return RemotePlace(f"s3://{endpoint}/{root}", "s3", root, {"endpoint_url": endpoint})
    return RemotePlace(f"{scheme}://{root}", scheme, root)


def _azure(url: str, rest: str) -> RemotePlace:
    """`as://account/container/prefix`, as tritonserver has it, or `az://container/prefix` of the account in the
    environment."""
    if url.lower().startswith("as:"):
        account, _, rest = rest.partition("/")
        root = _checked(url, rest)
        account = account.removesuffix(_AZURE_HOST)
        return RemotePlace(f"as://{account}{_AZURE_HOST}/{root}", "az", root, {"account_name": account})
    root = _checked(url, rest)
    return RemotePlace(f"az://{root}", "az", root)


def _checked(url: str, rest: str) -> str:
    root = rest.strip("/")
    parts = root.split("/")
    if not root or any(part in ("", ".", "..") for part in parts):
        problem = "names no bucket" if not root else "has an empty or dotted part"
        raise RemoteError(f"{url}: {problem}", "write such as s3://bucket/models")
    return root


def _check_installed(place: RemotePlace) -> None:
    extra, module = _EXTRAS[place.scheme]
    if find_spec("fsspec") is None or find_spec(module) is None:
        raise RemoteError(f"{place.url}: needs {module}, which is not installed", f"pip install 'modelwright[{extra}]'")
