//! `RateLimit-Policy` and `RateLimit`, as in draft-ietf-httpapi-ratelimit-headers-11: lists of structured fields (RFC 9651).

use std::fmt::Write as _;

use ::http::{HeaderMap, HeaderName, HeaderValue};

use crate::limit::{Status, whole_seconds};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Which responses have `RateLimit-Policy` and `RateLimit`. `Retry-After` is on every rejection, independent of this setting.
///
/// See [`RateLimitLayer`](super::RateLimitLayer) for an example.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RateLimitHeaders {
    /// All, so that clients can slow down before they are rejected.
    #[default]
    Always,
    /// Only rejections.
    OnRejection,
    /// None, so that clients do not learn the limits.
    Never,
}

/// Returns whether a response already has fields about limits.
pub(super) fn are_in(headers: &HeaderMap) -> bool {
    headers.contains_key(POLICY) || headers.contains_key(LIMIT)
}

/// Adds a member for each policy. Members of an inner layer stay.
pub(super) fn append(headers: &mut HeaderMap, policies: &[Status]) {
    let mut quotas = String::new();
    let mut rests = String::new();
    for status in policies {
        let separator = if quotas.is_empty() { "" } else { ", " };
        // The name of a policy has no character that would end the quotes.
        let Status {
            policy,
            limit,
            remaining,
            ..
        } = status;
        let window = whole_seconds(status.window);
        let _ = write!(quotas, "{separator}\"{policy}\";q={limit};w={window}");
        let _ = write!(rests, "{separator}\"{policy}\";r={remaining}");
        if !status.more_after.is_zero() {
            let _ = write!(rests, ";t={}", whole_seconds(status.more_after));
        }
    }
    for (name, value) in [(POLICY, quotas), (LIMIT, rests)] {
        if let Some(value) = HeaderValue::try_from(value)
            .ok()
            .filter(|value| !value.is_empty())
        {
            headers.append(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::limit::Verdict;

    fn status(policy: &str, window: Duration, remaining: u32, more_after: Duration) -> Status {
        Status {
            policy: policy.into(),
            verdict: Verdict::Allowed,
            limit: 100,
            window,
            remaining,
            more_after,
        }
    }

    fn lines(headers: &HeaderMap, name: &str) -> Vec<String> {
        let lines = headers.get_all(name).iter();
        lines
            .map(|line| line.to_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn each_policy_is_a_member_with_seconds_rounded_up() {
        let mut headers = HeaderMap::new();
        let minute = status(
            "api",
            Duration::from_secs(60),
            42,
            Duration::from_millis(16_001),
        );
        let burst = status(
            "burst",
            Duration::from_millis(100),
            0,
            Duration::from_millis(1),
        );

        append(&mut headers, &[minute, burst]);

        let policies = lines(&headers, "RateLimit-Policy");
        assert_eq!(policies, [r#""api";q=100;w=60, "burst";q=100;w=1"#]);
        assert_eq!(
            lines(&headers, "RateLimit"),
            [r#""api";r=42;t=17, "burst";r=0;t=1"#]
        );
    }

    #[test]
    fn a_full_quota_has_no_reset_time() {
        let mut headers = HeaderMap::new();
        append(
            &mut headers,
            &[status("api", Duration::from_secs(60), 100, Duration::ZERO)],
        );
        assert_eq!(lines(&headers, "RateLimit"), [r#""api";r=100"#]);
    }

    #[test]
    fn existing_fields_are_kept() {
        let mut headers = HeaderMap::new();
        headers.insert(LIMIT, HeaderValue::from_static(r#""inner";r=1;t=2"#));

        append(
            &mut headers,
            &[status("api", Duration::from_secs(60), 1, Duration::ZERO)],
        );

        assert_eq!(
            lines(&headers, "RateLimit"),
            [r#""inner";r=1;t=2"#, r#""api";r=1"#]
        );
    }

    #[test]
    fn no_policies_add_no_field() {
        let mut headers = HeaderMap::new();
        append(&mut headers, &[]);
        assert!(!are_in(&headers));
    }
}
