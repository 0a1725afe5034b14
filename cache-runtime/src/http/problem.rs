//! Responses for rejections: problem details (RFC 9457) with the types that draft-ietf-httpapi-ratelimit-headers-11
//! registers.

use ::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use serde_json::{Value, json};

use super::{fields, grpc};
use crate::limit::{Decision, Limited, Status, Verdict, whole_seconds};

const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/problem+json");
pub(super) const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Creates the response that [`http`](crate::http) describes: 429, or 503 if the limit cannot be checked.
impl<B: From<String>> From<Limited> for Response<B> {
    fn from(limited: Limited) -> Self {
        let mut response = of(&limited);
        complete(response.headers_mut(), &limited);
        fields::append(response.headers_mut(), &limited.decision().policies);
        response
    }
}

/// The status and the body of a rejection.
pub(super) fn of<B: From<String>>(limited: &Limited) -> Response<B> {
    let (status, kind, title) = match limited.decision().verdict {
        Verdict::Unavailable => (
            StatusCode::SERVICE_UNAVAILABLE,
            "temporary-reduced-capacity",
            "Temporary Reduced Capacity",
        ),
        Verdict::Blocked => (
            StatusCode::TOO_MANY_REQUESTS,
            "abnormal-usage-detected",
            "Abnormal Usage Detected",
        ),
        Verdict::Allowed | Verdict::Limited | Verdict::TooCostly => (
            StatusCode::TOO_MANY_REQUESTS,
            "quota-exceeded",
            "Quota Exceeded",
        ),
    };
    let violated = violated(limited.decision()).map(|status| &*status.policy);
    let problem = json!({
        "type": format!("https://iana.org/assignments/http-problem-types#{kind}"),
        "title": title,
        "status": status.as_u16(),
        "detail": limited.to_string(),
        "violated-policies": violated.collect::<Vec<_>>(),
    });
    response(status, &problem)
}

/// A problem without a type, which means that the status says everything.
pub(super) fn untyped<B: From<String>>(status: StatusCode, detail: &str) -> Response<B> {
    let problem = json!({
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "detail": detail,
    });
    response(status, &problem)
}

/// The same for a request with this method and these headers, which may be a gRPC call.
pub(super) fn untyped_or_grpc(
    method: &Method,
    request: &HeaderMap,
    status: StatusCode,
    detail: &str,
) -> Response<String> {
    grpc::refused(method, request, status, detail).unwrap_or_else(|| untyped(status, detail))
}

/// Adds the headers that every rejection must have, if they are missing.
pub(super) fn complete(headers: &mut HeaderMap, limited: &Limited) {
    let seconds = retry_after(limited.decision());
    headers.entry(header::RETRY_AFTER).or_insert(seconds.into());
    headers.entry(header::CACHE_CONTROL).or_insert(NO_STORE);
}

/// Returns whole seconds, at least 1, and not before the fields report that more units are available. If the time is
/// unknown or never comes, it is the window: without advice, a client retries at once.
fn retry_after(decision: &Decision) -> u64 {
    let more = violated(decision).map(|status| status.more_after).max();
    let window = violated(decision).map(|status| status.window).max();
    let wait = decision.retry_after.or(window).max(more);
    whole_seconds(wait.unwrap_or_default())
}

fn violated(decision: &Decision) -> impl Iterator<Item = &Status> {
    let policies = decision.policies.iter();
    policies.filter(|status| status.verdict != Verdict::Allowed)
}

fn response<B: From<String>>(status: StatusCode, problem: &Value) -> Response<B> {
    let mut response = Response::new(B::from(problem.to_string()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, CONTENT_TYPE);
    response
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::limit::Backend;

    fn status(policy: &str, verdict: Verdict, more_after: Duration) -> Status {
        Status {
            policy: policy.into(),
            verdict,
            limit: 5,
            window: Duration::from_secs(60),
            remaining: 0,
            more_after,
        }
    }

    fn rejection(
        verdict: Verdict,
        retry_after: Option<Duration>,
        policies: Vec<Status>,
    ) -> Response<String> {
        let decision = Decision {
            verdict,
            retry_after,
            policies,
            backend: Backend::Memory,
            charged: 0,
        };
        decision.into_result().unwrap_err().into()
    }

    fn simple(verdict: Verdict) -> Response<String> {
        let wait = Duration::from_secs(17);
        rejection(verdict, Some(wait), vec![status("login", verdict, wait)])
    }

    fn problem(response: &Response<String>) -> Value {
        serde_json::from_str(response.body()).unwrap()
    }

    fn retry_after(response: &Response<String>) -> u64 {
        let value = &response.headers()["retry-after"];
        value.to_str().unwrap().parse().unwrap()
    }

    #[test]
    fn a_rejection_is_a_problem_with_all_its_headers() {
        let response = simple(Verdict::Limited);

        assert_eq!(response.status(), 429);
        let headers = response.headers();
        assert_eq!(headers["content-type"], "application/problem+json");
        assert_eq!(headers["cache-control"], "no-store");
        assert_eq!(headers["retry-after"], "17");
        assert_eq!(headers["ratelimit-policy"], r#""login";q=5;w=60"#);
        assert_eq!(headers["ratelimit"], r#""login";r=0;t=17"#);
        let expected = json!({
            "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
            "title": "Quota Exceeded",
            "status": 429,
            "detail": "rate limit `login` exceeded; try again in 17 s",
            "violated-policies": ["login"],
        });
        assert_eq!(problem(&response), expected);
    }

    #[test]
    fn the_type_of_a_problem_depends_on_its_cause() {
        for (verdict, code, kind) in [
            (Verdict::Blocked, 429, "#abnormal-usage-detected"),
            (Verdict::Unavailable, 503, "#temporary-reduced-capacity"),
            (Verdict::TooCostly, 429, "#quota-exceeded"),
        ] {
            let response = simple(verdict);
            assert_eq!(response.status(), code);
            let problem = problem(&response);
            assert_eq!(problem["status"], code);
            assert!(
                problem["type"].as_str().unwrap().ends_with(kind),
                "{problem}"
            );
        }
    }

    #[test]
    fn violated_policies_are_those_that_reject() {
        let wait = Duration::from_secs(1);
        let policies = vec![
            status("day", Verdict::Allowed, Duration::from_secs(9)),
            status("minute", Verdict::Limited, wait),
        ];

        let response = rejection(Verdict::Limited, Some(wait), policies);

        assert_eq!(retry_after(&response), 1);
        assert_eq!(problem(&response)["violated-policies"], json!(["minute"]));
    }

    #[test]
    fn a_client_waits_for_the_window_by_default() {
        for verdict in [Verdict::TooCostly, Verdict::Unavailable, Verdict::Limited] {
            let policies = vec![status("api", verdict, Duration::ZERO)];
            assert_eq!(retry_after(&rejection(verdict, None, policies)), 60);
        }
        assert_eq!(
            retry_after(&rejection(Verdict::Limited, None, Vec::new())),
            1
        );
    }

    proptest! {
        #[test]
        fn retry_after_is_never_earlier_than_the_next_unit(
            wait in prop::option::of(0_u64..100_000_000_000),
            more in prop::collection::vec(0_u64..100_000_000_000, 0..4),
        ) {
            let policies = more.iter().map(|more| {
                status("api", Verdict::Limited, Duration::from_nanos(*more))
            });

            let response = rejection(Verdict::Limited, wait.map(Duration::from_nanos), policies.collect());

            let seconds = retry_after(&response);
            prop_assert!(seconds >= 1);
            let longest = more.into_iter().chain(wait).max().unwrap_or(0);
            prop_assert!(seconds >= longest.div_ceil(1_000_000_000));
        }
    }
}
