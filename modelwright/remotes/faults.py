"""What can go wrong with a store, in words. The libraries' exceptions are known by name, so that none is imported."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from modelwright.errors import ModelwrightError, RemoteError, one_line
from modelwright.remotes.place import RemotePlace

_CREDENTIALS = {
    "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound", "NoAuthTokenError",
    "TokenRetrievalError", "UnauthorizedSSOTokenError", "DefaultCredentialsError", "RefreshError",
    "ClientAuthenticationError", "CredentialUnavailableError", "InvalidAccessKeyId", "SignatureDoesNotMatch",
    "ExpiredToken", "InvalidToken", "TokenRefreshRequired",
}  # fmt: skip
_NETWORK = {
    "HTTPClientError", "ConnectionError", "ClientConnectionError", "ServerDisconnectedError", "ServiceRequestError",
    "ServiceResponseError", "TimeoutError", "FSTimeoutError", "IncompleteRead", "IncompleteReadError", "TransportError",
}  # fmt: skip
_LIBRARIES = ("botocore", "aiobotocore", "s3fs", "gcsfs", "google", "adlfs", "azure", "aiohttp", "fsspec")
_CREDENTIALS_HINTS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; see that they belong to this store",
    "gs": "run 'gcloud auth application-default login', or set GOOGLE_APPLICATION_CREDENTIALS",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or AZURE_STORAGE_CONNECTION_STRING",
}
_AGAIN = "run the same command again: it goes on where it was"


@contextlib.contextmanager
def store_errors(place: RemotePlace, name: str = "", *, writes: bool = False) -> Iterator[None]:
    """Raise RemoteError in place of what a store's library raises. `name` is the object that it is about.

    Where a write says that something is not there, it is the bucket.
    """
    try:
        yield
    except ModelwrightError:
        raise
    except Exception as error:  # each library has exceptions of its own, and several that they let through
        known = _known(error, place, name, writes)
        if known is None:
            raise
        raise known from error


def _known(error: Exception, place: RemotePlace, name: str, writes: bool) -> RemoteError | None:
    where = place.of(name) if name else place.url
    names = {kind.__name__ for kind in type(error).__mro__} | {_code(error)}
    text = one_line(error) or type(error).__name__
    if names & _CREDENTIALS:
        return RemoteError(f"{where}: wrong or missing credentials: {text}", _CREDENTIALS_HINTS.get(place.scheme, ""))
    if isinstance(error, PermissionError):
        hint = "the credentials must allow to list, read, write and delete objects below this prefix"
        return RemoteError(f"{where}: not allowed: {text}", hint)
    if is_missing_bucket(error) or (isinstance(error, FileNotFoundError) and (writes or not name)):
        return RemoteError(f"{place.url}: there is no bucket '{place.bucket}'", "make it, or see to the URL")
    if isinstance(error, FileNotFoundError):
        return RemoteError(f"{where}: is not there (any more): {text}", _AGAIN)
    if names & _NETWORK or "timed out" in text.lower():
        return RemoteError(f"{where}: the store does not answer: {text}", f"see to the network and the URL; {_AGAIN}")
    if isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _LIBRARIES:
        return RemoteError(f"{where}: {text}", _AGAIN)
    return None


def is_damaged(error: Exception) -> bool:
    """Whether a library found that an object is not what its checksum says."""
    return type(error).__name__ == "FlexibleChecksumError"


def _code(error: BaseException) -> str:
    """The store's own code for an error, such as NoSuchBucket."""
    for each in (error, error.__cause__):
        response = getattr(each, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        code = getattr(each, "error_code", None)
        if code:
            return str(code)
    return ""


def is_missing_bucket(error: Exception) -> bool:
    return _code(error) in ("NoSuchBucket", "ContainerNotFound") or "bucket does not exist" in str(error).lower()
