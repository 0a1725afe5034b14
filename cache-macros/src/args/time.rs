//! Times that are known at compile time, and times that are not.

use std::time::Duration;

use syn::{BinOp, Expr, ExprClosure, ExprLit, ExprUnary, Lit, UnOp};

use crate::report::Report;

/// The longest TTL, `100years`. Redis adds it to the time of day in milliseconds, which must not overflow.
const MAX_TIME: Duration = Duration::from_secs(36_525 * 86_400);

const TOO_LONG: &str = "must be at most 100 years";

/// A TTL.
pub(crate) enum TtlArg {
    /// Known at compile time, in milliseconds.
    Millis(u64),
    /// An expression that is evaluated at each call.
    Asked(Expr),
    /// A closure that is called with each value.
    OfValue(ExprClosure),
}

/// Parses a TTL: whole seconds, a duration text, or an expression to evaluate at each call.
pub(super) fn ttl(value: Expr, name: &str, report: &mut Report) -> Option<TtlArg> {
    let checked = match &value {
        Expr::Lit(ExprLit {
            lit: Lit::Str(text),
            ..
        }) => duration(&text.value()),
        Expr::Lit(ExprLit {
            lit: Lit::Float(_), ..
        }) => Err("needs whole seconds, or text such as \"1500ms\"".to_owned()),
        Expr::Lit(ExprLit {
            lit: Lit::Int(_), ..
        })
        | Expr::Binary(_)
        | Expr::Unary(_) => match seconds(&value) {
            Some(0) => Err("must be at least 1 second".to_owned()),
            Some(seconds) => Ok(Duration::from_secs(seconds)),
            None if is_negative(&value) => Err("must be at least 1 second".to_owned()),
            // The number does not fit into the integer type.
            None if matches!(value, Expr::Lit(_)) => Err(TOO_LONG.to_owned()),
            None => return Some(TtlArg::Asked(value)),
        },
        _ => return Some(TtlArg::Asked(value)),
    };
    let problem = match checked {
        Ok(ttl) if ttl <= MAX_TIME => {
            return Some(TtlArg::Millis(
                u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX),
            ));
        }
        Ok(_) => TOO_LONG.to_owned(),
        Err(problem) => problem,
    };
    let otherwise = match name {
        "ttl" => "leave it out to use the cache's default",
        "grace" => "leave it out to serve nothing stale",
        "local" => "leave it out to ask Redis at each call",
        _ => "leave it out to store no `None`",
    };
    report.at(value, format!("`{name}` {problem}; {otherwise}"));
    None
}

/// A text such as `1h 30m`.
fn duration(text: &str) -> Result<Duration, String> {
    // Sums of larger numbers can panic in humantime.
    let has_long_number = text
        .split(|c: char| !c.is_ascii_digit())
        .any(|digits| digits.len() > 12);
    match humantime::parse_duration(if has_long_number { "" } else { text }) {
        Ok(ttl) if ttl < Duration::from_millis(1) => {
            Err("must be at least 1 millisecond".to_owned())
        }
        Ok(ttl) => Ok(ttl),
        Err(humantime::DurationError::NumberOverflow) => Err(TOO_LONG.to_owned()),
        Err(_) if has_long_number => Err(TOO_LONG.to_owned()),
        Err(_) => Err(format!(
            "needs a duration such as \"90s\", \"30m\" or \"1h 30m\", not {text:?}"
        )),
    }
}

/// Returns whether this is a number, or sums and products of numbers such as `30 * 60`, whose integer type would
/// otherwise be ambiguous.
fn seconds(value: &Expr) -> Option<u64> {
    match value {
        Expr::Lit(ExprLit {
            lit: Lit::Int(number),
            ..
        }) => number.base10_parse().ok(),
        Expr::Paren(inner) => seconds(&inner.expr),
        Expr::Group(inner) => seconds(&inner.expr),
        Expr::Binary(operation) => {
            let (left, right) = (seconds(&operation.left)?, seconds(&operation.right)?);
            match operation.op {
                BinOp::Add(_) => left.checked_add(right),
                BinOp::Mul(_) => left.checked_mul(right),
                _ => None,
            }
        }
        _ => None,
    }
}

fn is_negative(value: &Expr) -> bool {
    matches!(value, Expr::Unary(ExprUnary { op: UnOp::Neg(_), expr, .. }) if seconds(expr).is_some())
}
