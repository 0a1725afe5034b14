//! Rejections of gRPC calls. A gRPC client cannot read a problem in JSON: it takes its first byte for the flag of a message.

use ::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

const STATUS: &str = "grpc-status";
const MESSAGE: &str = "grpc-message";

/// Begins the content type of each call, as in `application/grpc+proto` and `application/grpc-web`.
const CONTENT_TYPE: &[u8] = b"application/grpc";

/// Returns the response of a layer to a gRPC call in place of a problem with this status and detail, and `None` to any other request.
/// Each call is a `POST`. Otherwise any client could turn a refusal into a 200, which monitors do not see and caches may store.
///
/// The response has no body. Its headers carry the status of the call, as [Trailers-Only] in the protocol of gRPC over HTTP/2.
///
/// [Trailers-Only]: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#responses
pub(super) fn refused<B: Default>(
    method: &Method,
    request: &HeaderMap,
    status: StatusCode,
    detail: &str,
) -> Option<Response<B>> {
    let called = request.get(header::CONTENT_TYPE)?;
    if method != Method::POST || !is_call(called) {
        return None;
    }
    let mut response = Response::new(B::default());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, called.clone());
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(STATUS, HeaderValue::from(code(status)));
    if let Ok(message) = HeaderValue::from_str(&percent_encoded(detail)) {
        headers.insert(MESSAGE, message);
    }
    Some(response)
}

/// Returns the HTTP status that corresponds to the code in the headers of a response. A response with messages has its code in the
/// trailers, which come later.
pub(super) fn status(response: &HeaderMap) -> Option<StatusCode> {
    Some(match response.get(STATUS)?.as_bytes() {
        b"0" => StatusCode::OK,
        b"3" => StatusCode::BAD_REQUEST,
        b"5" => StatusCode::NOT_FOUND,
        b"7" => StatusCode::FORBIDDEN,
        b"8" => StatusCode::TOO_MANY_REQUESTS,
        b"14" => StatusCode::SERVICE_UNAVAILABLE,
        b"16" => StatusCode::UNAUTHORIZED,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    })
}

fn is_call(content_type: &HeaderValue) -> bool {
    let kind = content_type.as_bytes();
    let (Some(start), after) = (kind.get(..CONTENT_TYPE.len()), kind.get(CONTENT_TYPE.len()))
    else {
        return false;
    };
    start.eq_ignore_ascii_case(CONTENT_TYPE)
        && matches!(after, None | Some(b'+' | b'-' | b';' | b' '))
}

/// The [code] of gRPC for a status that a layer responds with. 429 is `RESOURCE_EXHAUSTED`, which clients expect of a limit; the
/// mapping of gRPC for proxies has `UNAVAILABLE` there.
///
/// [code]: https://grpc.io/docs/guides/status-codes/
fn code(status: StatusCode) -> u16 {
    match status {
        StatusCode::FORBIDDEN => 7,
        StatusCode::TOO_MANY_REQUESTS => 8,
        StatusCode::SERVICE_UNAVAILABLE => 14,
        _ => 13,
    }
}

/// Returns a message as its header needs it: printable ASCII, and every other byte as `%` and two digits.
fn percent_encoded(message: &str) -> String {
    let mut encoded = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(content_type: &str, status: StatusCode, detail: &str) -> Option<Response<String>> {
        let mut request = HeaderMap::new();
        request.insert(header::CONTENT_TYPE, content_type.parse().unwrap());
        refused(&Method::POST, &request, status, detail)
    }

    #[test]
    fn a_call_is_refused_in_the_headers() {
        let response = answer(
            "application/grpc+proto",
            StatusCode::TOO_MANY_REQUESTS,
            "try again",
        );

        let response = response.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/grpc+proto");
        assert_eq!(response.headers()["grpc-status"], "8");
        assert_eq!(response.headers()["grpc-message"], "try again");
        assert_eq!(response.body(), "");
    }

    #[test]
    fn each_status_has_its_code() {
        for (status, code) in [(403, "7"), (429, "8"), (500, "13"), (503, "14")] {
            let status = StatusCode::from_u16(status).unwrap();
            let response = answer("application/grpc", status, "").unwrap();
            assert_eq!(response.headers()["grpc-status"], code);
        }
    }

    #[test]
    fn every_notation_of_a_call_is_known_and_nothing_else() {
        for kind in [
            "application/grpc",
            "Application/GRPC",
            "application/grpc-web+proto",
            "application/grpc; a=b",
        ] {
            assert!(answer(kind, StatusCode::FORBIDDEN, "").is_some(), "{kind}");
        }
        for kind in [
            "application/json",
            "application/grpcs",
            "application/grp",
            "text/grpc",
        ] {
            assert!(answer(kind, StatusCode::FORBIDDEN, "").is_none(), "{kind}");
        }
        assert!(
            refused::<String>(&Method::POST, &HeaderMap::new(), StatusCode::FORBIDDEN, "")
                .is_none()
        );
    }

    #[test]
    fn a_message_keeps_within_printable_ascii() {
        let response = answer("application/grpc", StatusCode::FORBIDDEN, "100 %\nüber").unwrap();

        assert_eq!(response.headers()["grpc-message"], "100 %25%0A%C3%BCber");
    }

    #[test]
    fn a_request_that_cannot_be_a_call_is_refused_as_usual() {
        let mut request = HeaderMap::new();
        request.insert(header::CONTENT_TYPE, "application/grpc".parse().unwrap());

        let refused = refused::<String>(&Method::GET, &request, StatusCode::FORBIDDEN, "");

        assert!(refused.is_none());
    }
}
