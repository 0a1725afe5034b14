//! What an attribute says: the arguments as they were written, checked into types in which nonsense cannot be said.

use std::fmt;
use std::time::Duration;

use proc_macro2::TokenStream;
use syn::{BinOp, Expr, ExprLit, ExprUnary, Lit, LitStr, Path, UnOp};

use crate::function::Function;
use crate::report::Report;
use crate::target::{Resolver, Template};
use crate::template::Kind;
use crate::written::Attribute::{self, CacheEvict, CachePut, Cacheable};
use crate::written::{Written, literal_text};

/// What an attribute says, checked.
pub(crate) struct Plan {
    /// Where the runtime lives; `None` is `::cache_runtime`.
    pub(crate) runtime: Option<Path>,
    pub(crate) cache: Option<Expr>,
    pub(crate) condition: Option<Expr>,
    pub(crate) work: Work,
}

/// What is to be done with the cache.
pub(crate) enum Work {
    Cacheable(Template, Storing),
    Put(Template, Storing),
    Evict(Eviction),
}

/// How a value is stored.
pub(crate) struct Storing {
    pub(crate) ttl: Option<Life>,
    pub(crate) none_ttl: Option<u64>,
    pub(crate) policy: Option<LitStr>,
    pub(crate) version: Option<u64>,
    pub(crate) unless: Option<Expr>,
}

/// How long something lives.
pub(crate) enum Life {
    /// Known while compiling, in milliseconds.
    Millis(u64),
    /// Asked for at each call.
    Asked(Expr),
}

/// What is removed, and when.
pub(crate) struct Eviction {
    pub(crate) what: Evicted,
    pub(crate) before: bool,
    pub(crate) always: bool,
}

/// What is removed.
pub(crate) enum Evicted {
    Matching(Vec<Template>),
    AllEntries,
}

impl fmt::Display for Evicted {
    /// The targets as they were written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllEntries => f.write_str("all_entries"),
            Self::Matching(templates) => {
                let written: Vec<String> = templates
                    .iter()
                    .map(|template| template.literal.value())
                    .collect();
                f.write_str(&written.join(", "))
            }
        }
    }
}

/// The longest life that can be written. Redis adds it to the time of day in milliseconds and must not overflow.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 86_400);

/// Reads and checks the arguments of `attribute` on `function`. What it returns is of use only if the report stays empty.
pub(crate) fn check(
    attribute: Attribute,
    tokens: TokenStream,
    function: &Function,
    report: &mut Report,
) -> Option<Plan> {
    let mut written = Written::read(attribute, tokens, report);
    let runtime = written.path("crate", report);
    let cache = written.expression("cache", report);
    let condition = written.expression("condition", report);
    let work = if attribute == CacheEvict {
        Work::Evict(written.eviction(function, report))
    } else {
        let (key, storing) = (written.one_key(function, report), written.storing(report));
        if attribute == Cacheable {
            Work::Cacheable(key?, storing)
        } else {
            Work::Put(key?, storing)
        }
    };
    Some(Plan {
        runtime,
        cache,
        condition,
        work,
    })
}

impl Written {
    fn one_key(&mut self, function: &Function, report: &mut Report) -> Option<Template> {
        if self.lacks(&["key"]) {
            let written = self.attribute.written();
            self.missing(
                format!("`{written}` needs a key, such as `key = \"event:<id>\"`"),
                report,
            );
            return None;
        }
        let text = match self.expression("key", report)? {
            Expr::Array(list) => {
                report.at(
                    list,
                    "a cached function needs one key, not a list; write `key = \"event:<id>\"`",
                );
                return None;
            }
            text => literal_text(text, "key", report)?,
        };
        let refusal = match self.attribute {
            CachePut => Some(
                "is not known when `#[cache_put]` fences its key, before the body; use parameters only",
            ),
            _ => Some(
                "is not known when `#[cacheable]` looks for its key, before the body; use parameters only",
            ),
        };
        Some(
            Resolver {
                function,
                refusal,
                report,
            }
            .resolve(text, Kind::Key),
        )
    }

    fn storing(&mut self, report: &mut Report) -> Storing {
        Storing {
            ttl: self
                .expression("ttl", report)
                .and_then(|value| life(value, "ttl", report)),
            none_ttl: self.none_ttl(report),
            policy: self.text("policy", report),
            version: self.version(report),
            unless: self.expression("unless", report),
        }
    }

    fn none_ttl(&mut self, report: &mut Report) -> Option<u64> {
        match life(self.expression("none_ttl", report)?, "none_ttl", report)? {
            Life::Millis(millis) => Some(millis),
            Life::Asked(other) => {
                report.at(other, "`none_ttl` needs seconds or a duration, such as `none_ttl = 30` or `none_ttl = \"500ms\"`");
                None
            }
        }
    }

    fn version(&mut self, report: &mut Report) -> Option<u64> {
        let value = self.expression("version", report)?;
        let version = match &value {
            Expr::Lit(ExprLit {
                lit: Lit::Int(number),
                ..
            }) => number.base10_parse().ok().filter(|version| *version > 0),
            _ => None,
        };
        if version.is_none() {
            report.at(
                value,
                "`version` needs a whole number from 1 up, such as `version = 2`",
            );
        }
        version
    }

    fn eviction(&mut self, function: &Function, report: &mut Report) -> Eviction {
        let before = self.flag("before", report);
        let always = self.flag("always", report);
        let all_entries = self.flag("all_entries", report);
        let targeted = !self.lacks(&["key", "pattern"]);
        match (&all_entries, targeted) {
            (None, false) => {
                let targets = "`key = \"event:<id>\"`, `pattern = \"event:*\"` or `all_entries`";
                self.missing(
                    format!("`#[cache_evict]` needs something to evict: {targets}"),
                    report,
                );
            }
            (Some(name), true) => report.at(
                name,
                "`all_entries` already covers every key and pattern; leave one of them out",
            ),
            _ => {}
        }
        let refusal = match (&before, &always) {
            (Some(_), _) => {
                Some("is not known `before` the body runs; use parameters, or leave `before` out")
            }
            (None, Some(_)) => Some(
                "does not exist when the body fails, and `always` evicts then too; use parameters, or leave `always` out",
            ),
            (None, None) => None,
        };
        let mut templates = Vec::new();
        for (name, kind) in [("key", Kind::Key), ("pattern", Kind::Pattern)] {
            for text in self.texts(name, report) {
                let mut resolver = Resolver {
                    function,
                    refusal,
                    report: &mut *report,
                };
                templates.push(resolver.resolve(text, kind));
            }
        }
        let what = if all_entries.is_some() {
            Evicted::AllEntries
        } else {
            Evicted::Matching(templates)
        };
        Eviction {
            what,
            before: before.is_some(),
            always: always.is_some(),
        }
    }
}

/// A time to live: whole seconds, a duration text, or an expression to ask at each call.
fn life(value: Expr, name: &str, report: &mut Report) -> Option<Life> {
    let checked = match &value {
        Expr::Lit(ExprLit {
            lit: Lit::Str(text),
            ..
        }) => match humantime::parse_duration(&text.value()) {
            Ok(life) if life < Duration::from_millis(1) => {
                Err("must be at least 1 millisecond".to_owned())
            }
            Ok(life) => Ok(life),
            Err(_) => Err(format!(
                "needs a duration such as \"90s\", \"30m\" or \"1h 30m\", not {:?}",
                text.value()
            )),
        },
        Expr::Lit(ExprLit {
            lit: Lit::Float(_), ..
        }) => Err("needs whole seconds, or a text such as \"1500ms\"".to_owned()),
        Expr::Lit(ExprLit {
            lit: Lit::Int(_), ..
        })
        | Expr::Binary(_)
        | Expr::Unary(_) => match seconds(&value) {
            Some(0) => Err("must be at least 1 second".to_owned()),
            Some(seconds) => Ok(Duration::from_secs(seconds)),
            None if is_negative(&value) => Err("must be at least 1 second".to_owned()),
            None if matches!(value, Expr::Lit(_)) => Err("is not a number of seconds".to_owned()),
            None => return Some(Life::Asked(value)),
        },
        _ => return Some(Life::Asked(value)),
    };
    let problem = match checked {
        Ok(life) if life <= LONGEST => {
            return Some(Life::Millis(
                u64::try_from(life.as_millis()).unwrap_or(u64::MAX),
            ));
        }
        Ok(_) => "must be at most 100 years".to_owned(),
        Err(problem) => problem,
    };
    let otherwise = if name == "ttl" {
        "leave it out to use the cache's default"
    } else {
        "leave it out to store no `None`"
    };
    report.at(value, format!("`{name}` {problem}; {otherwise}"));
    None
}

/// A number, or sums and products of numbers such as `30 * 60`, which would otherwise be of no particular integer type.
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

#[cfg(test)]
mod tests {
    use super::*;

    const FIND: &str = "async fn find(&self, id: i64, name: &str) -> Result<Event, Error> {}";

    fn checked(attribute: Attribute, arguments: &str) -> Result<Plan, String> {
        let function = syn::parse_str(FIND).expect("a function");
        let mut report = Report::default();
        let plan = check(
            attribute,
            arguments.parse().expect("tokens"),
            &function,
            &mut report,
        );
        match report.into_tokens() {
            Some(errors) => Err(errors.to_string()),
            None => Ok(plan.expect("a plan where there is no error")),
        }
    }

    fn ttl(ttl: &str) -> Result<Option<Life>, String> {
        match checked(Cacheable, &format!("key = \"a\", ttl = {ttl}"))?.work {
            Work::Cacheable(_, storing) => Ok(storing.ttl),
            _ => panic!("it is cacheable"),
        }
    }

    #[test]
    fn a_ttl_is_seconds_a_text_or_an_expression() {
        for (written, millis) in [
            ("1800", 1_800_000),
            ("\"1h 30m\"", 5_400_000),
            ("\"5ms\"", 5),
            ("30 * 60", 1_800_000),
        ] {
            assert!(
                matches!(ttl(written), Ok(Some(Life::Millis(found))) if found == millis),
                "{written}"
            );
        }
        assert!(matches!(ttl("self.ttl()"), Ok(Some(Life::Asked(_)))));
        assert!(matches!(ttl("HOUR * 2"), Ok(Some(Life::Asked(_)))));
    }

    #[test]
    fn a_ttl_that_cannot_be_meant_is_refused() {
        for written in [
            "0",
            "-1",
            "1.5",
            "\"\"",
            "\"soon\"",
            "\"100us\"",
            "\"101years\"",
            "99999999999999999999",
        ] {
            assert!(ttl(written).is_err(), "{written}");
        }
    }

    #[test]
    fn every_mistake_is_reported() {
        let errors = checked(
            Cacheable,
            "key = \"a:<idd>\", tll = 5, pattern = \"x\", version = 0, \"y\", version = 1",
        )
        .err()
        .expect("errors");

        assert_eq!(errors.matches("compile_error").count(), 6, "{errors}");
    }

    #[test]
    fn arguments_of_later_versions_are_unknown() {
        for argument in [
            "tag = \"x\"",
            "grace = \"1m\"",
            "refresh = \"background\"",
            "local = \"5s\"",
            "fence",
            "ttl_jitter = 5",
        ] {
            for attribute in [Cacheable, CachePut, CacheEvict] {
                let error = checked(attribute, &format!("key = \"a\", {argument}"))
                    .err()
                    .expect(argument);
                assert!(error.contains("unknown argument"), "{error}");
            }
        }
    }
}
