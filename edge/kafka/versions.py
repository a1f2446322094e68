"""What is answered before an API is looked for: ApiVersions, and versions that are not served."""

from __future__ import annotations

from edge.kafka.apis.metadata import api_versions
from edge.kafka.codec import API_VERSIONS, Head, Request, encode_response, unsupported_version
from edge.kafka.fields import Malformed
from ingest.wire.codes import ErrorCode


def answer_versions(request: Request | Head) -> bytes | None:
    """Return the answer to ApiVersions, None if it is another request.

    Raises:
        Malformed: its API or version is not served.
    """
    if isinstance(request, Head):
        if request.api_key == API_VERSIONS:
            return unsupported_version(request, api_versions(ErrorCode.UNSUPPORTED_VERSION))
        raise Malformed(f"api {request.api_key}, version {request.version} is not served")
    return encode_response(request, api_versions()) if request.api.key == API_VERSIONS else None
