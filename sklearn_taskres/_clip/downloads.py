"""Files of models that have to be downloaded: why one could not be, and where a person gets it."""

import re
import socket
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

#: How a failed look-up of a server reads if a library keeps only the text.
_NO_NAME = re.compile(
    r"name resolution|Name or service not known|getaddrinfo|nodename nor servname"
)


class ModelUnavailableError(OSError):
    """The weights, configuration or tokenizer of a model are neither on disk nor downloadable."""


def fetched(what, remedy, fetch, *args, **kwargs):
    """Return the path of a file from the hub or its cache.

    Raises
    ------
    ModelUnavailableError
        For all that can go wrong, in one sentence of why and one of what to do.
    """
    try:
        return Path(fetch(*args, **kwargs))
    except Exception as error:  # whatever the network stack raises
        raise unavailable(what, error, remedy) from None


def unavailable(what, error, remedy):
    """Return the error for something that is neither on disk nor could be downloaded."""
    return ModelUnavailableError(
        f"{what} is not in the cache ({huggingface_hub.constants.HF_HUB_CACHE}) and could not be "
        f"downloaded: {_reason(error)}. {remedy}"
    )


def hub_address(repository, file):
    """Return the address from which a browser downloads a file of a hub repository."""
    return huggingface_hub.hf_hub_url(repository, file)


def _reason(error):
    """Say why a download failed, from an error or those that it arose from."""
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return "the environment variable HF_HUB_OFFLINE forbids it"
    chain = list(_chain(error))
    if any(isinstance(e, GatedRepoError) for e in chain):
        return "the hub lets only registered users have it"
    if any(_is_missing(e) for e in chain):
        return "the hub does not have it"
    if any(isinstance(e, socket.gaierror) or _NO_NAME.search(str(e)) for e in chain):
        return "the name of the server could not be resolved, so this machine is probably offline"
    if any(isinstance(e, ConnectionError | LocalEntryNotFoundError) for e in chain):
        return "no connection to the hub"
    return first_line(chain[-1])


def _chain(error):
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _is_missing(error):
    kinds = (EntryNotFoundError, RepositoryNotFoundError)
    return isinstance(error, kinds) and not isinstance(error, LocalEntryNotFoundError)


def first_line(error):
    """Return the first line of an error's message, without a stop; its kind if it says nothing."""
    line = str(error).strip().partition("\n")[0].rstrip(". :")
    return line or type(error).__name__
