//! The arguments of an attribute, checked and converted into types that cannot hold an invalid combination.

pub(crate) mod limit;
mod time;

use std::fmt;

use proc_macro2::{Span, TokenStream};
use syn::{Expr, ExprClosure, ExprLit, Lit, LitStr, Path};

use crate::borrowed;
use crate::coverage;
use crate::function::Function;
use crate::report::Report;
use crate::target::{Resolver, Template};
use crate::template::Kind;
use crate::written::Attribute::{self, CacheEvict, CachePut, Cacheable, RateLimit};
use crate::written::Written;
use time::ttl;

pub(crate) use time::TtlArg;

/// The checked arguments of a caching attribute.
pub(crate) struct Plan {
    /// The path of the runtime; `None` is `::cache_runtime`.
    pub(crate) runtime: Option<Path>,
    pub(crate) cache: Option<Expr>,
    pub(crate) condition: Option<Expr>,
    /// Arguments that the body reads although the key leaves them out, because their names begin with `_`.
    pub(crate) unkeyed: Vec<String>,
    pub(crate) work: Work,
}

/// What the function does with the cache.
pub(crate) enum Work {
    Cacheable(Template, StoreArgs),
    Put(Template, StoreArgs),
    Evict(EvictArgs),
}

/// How a value is stored.
pub(crate) struct StoreArgs {
    pub(crate) ttl: Option<TtlArg>,
    /// In milliseconds.
    pub(crate) none_ttl: Option<u64>,
    /// In milliseconds.
    pub(crate) grace: Option<u64>,
    /// In percent.
    pub(crate) ttl_jitter: Option<u8>,
    pub(crate) policy: Option<LitStr>,
    pub(crate) version: Option<u64>,
    pub(crate) unless: Option<Expr>,
    pub(crate) refresh: RefreshArg,
    pub(crate) tags: Vec<Template>,
    pub(crate) local: Option<LocalArg>,
}

/// How values are kept in the memory of the process.
#[derive(Clone, Copy)]
pub(crate) struct LocalArg {
    pub(crate) millis: u64,
    pub(crate) serves_in_outage: bool,
}

/// Where a stale value is refreshed.
#[derive(Clone, Copy)]
pub(crate) enum RefreshArg {
    /// Within the call of a caller.
    Caller,
    /// In its own task; the span is the argument that asks for it.
    Background(Span),
}

/// What is removed, and when.
pub(crate) struct EvictArgs {
    pub(crate) what: Targets,
    pub(crate) before: bool,
    pub(crate) always: bool,
    pub(crate) fence: bool,
}

/// What is removed.
pub(crate) enum Targets {
    Matching(Vec<Template>),
    AllEntries,
}

impl fmt::Display for Targets {
    /// The targets as written.
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

/// The largest `ttl_jitter`, in percent.
const MAX_JITTER: u8 = 50;

/// Reads and checks the arguments of a caching `attribute` on `function`. The result is usable only if the report stays
/// empty.
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
    let mut unkeyed = Vec::new();
    let work = if attribute == CacheEvict {
        Work::Evict(written.eviction(function, report))
    } else {
        let key = written.one_key(function, report);
        let any_type = written.flag("any_type", report);
        let understood = key
            .as_ref()
            .filter(|key| key.is_understood && !written.is_incomplete());
        coverage::check_generics(function, understood, any_type.as_ref(), report);
        if attribute == Cacheable {
            let ignored = written.names("ignore", report);
            unkeyed =
                coverage::check_arguments(function, understood, cache.as_ref(), &ignored, report);
        }
        let storing = written.storing(function, report);
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
        unkeyed,
        work,
    })
}

impl Written {
    fn one_key(&mut self, function: &Function, report: &mut Report) -> Option<Template> {
        let (kind, what, otherwise, refusal) = match self.attribute {
            CachePut => (
                Kind::Key,
                "a cached function",
                "",
                "is not known when `#[cache_put]` fences its key, before the body; use parameters only",
            ),
            RateLimit => (
                Kind::Client,
                "a rate limit",
                ", or `key = \"all\"` to count all clients together",
                "is not known when `#[rate_limit]` counts the call, before the body; use parameters only",
            ),
            Cacheable | CacheEvict => (
                Kind::Key,
                "a cached function",
                "",
                "is not known when `#[cacheable]` looks up its key, before the body; use parameters only",
            ),
        };
        let example = self.attribute.example("key");
        if self.lacks(&["key"]) {
            let written = self.attribute.written();
            self.missing(
                format!("`{written}` needs a key, such as `{example}`{otherwise}"),
                report,
            );
            return None;
        }
        let text = match self.expression("key", report)? {
            Expr::Array(list) => {
                report.at(
                    list,
                    format!("{what} needs one key, not a list; write `{example}`"),
                );
                return None;
            }
            text => self.literal_text(text, "key", report)?,
        };
        Some(Resolver::new(function, Some(refusal), report).resolve(text, kind))
    }

    fn storing(&mut self, function: &Function, report: &mut Report) -> StoreArgs {
        // Only the presence counts here: an invalid `grace` has its own error.
        let may_be_stale = !self.lacks(&["grace", "policy"]);
        StoreArgs {
            ttl: self.ttl(report),
            none_ttl: self.millis("none_ttl", report),
            grace: self.millis("grace", report),
            ttl_jitter: self.ttl_jitter(report),
            policy: self.text("policy", report),
            version: self.version(report),
            unless: self.unless(report),
            refresh: self.refresh(may_be_stale, function, report),
            tags: self.tags(function, report),
            local: self.local(report),
        }
    }

    /// Reads the tags of what is stored.
    fn tags(&mut self, function: &Function, report: &mut Report) -> Vec<Template> {
        let mut tags: Vec<Template> = Vec::new();
        for text in self.texts("tag", report) {
            let tag = Resolver::new(function, None, report).resolve(text, Kind::Tag);
            let written = tag.literal.value();
            if tag.is_understood && tag.names_returned() && tag.family().is_none() {
                report.at(
                    &tag.literal,
                    format!(
                        "`{written}` is known only after the body, so it must begin with a word and a `:`; write one such as `\"organizer:<return.organizer_id>\"`"
                    ),
                );
            } else if tags.iter().any(|tag| tag.literal.value() == written) {
                report.at(
                    &tag.literal,
                    format!("`{written}` is already named; leave one of the two out"),
                );
            } else {
                tags.push(tag);
            }
        }
        tags
    }

    fn local(&mut self, report: &mut Report) -> Option<LocalArg> {
        let is_local = !self.lacks(&["local"]);
        let millis = self.millis("local", report);
        let outage = self.expression("local_outage", report);
        let outage = outage.and_then(|value| self.literal_text(value, "local_outage", report));
        if let Some(text) = &outage {
            if !is_local {
                report.at(
                    text,
                    "without `local` no value is kept in the process; add `local = \"5s\"`, or leave `local_outage` out",
                );
            } else if !matches!(text.value().as_str(), "bypass" | "serve") {
                report.at(
                    text,
                    "`local_outage` has two values; write `local_outage = \"bypass\"` or `local_outage = \"serve\"`",
                );
            }
        }
        Some(LocalArg {
            millis: millis?,
            serves_in_outage: outage.is_some_and(|text| text.value() == "serve"),
        })
    }

    fn unless(&mut self, report: &mut Report) -> Option<Expr> {
        let unless = self.expression("unless", report)?;
        // An expression that is not a closure may be a function.
        match &unless {
            Expr::Closure(closure) => takes_one_value(closure, "unless", report).then_some(unless),
            _ => Some(unless),
        }
    }

    fn ttl(&mut self, report: &mut Report) -> Option<TtlArg> {
        match self.expression("ttl", report)? {
            Expr::Closure(closure) => {
                takes_one_value(&closure, "ttl", report).then_some(TtlArg::OfValue(closure))
            }
            value => ttl(value, "ttl", report),
        }
    }

    /// Reads a time that is known at compile time.
    fn millis(&mut self, name: &str, report: &mut Report) -> Option<u64> {
        let value = self.expression(name, report)?;
        match ttl(value.clone(), name, report)? {
            TtlArg::Millis(millis) => Some(millis),
            TtlArg::Asked(_) | TtlArg::OfValue(_) => {
                report.at(
                    value,
                    format!(
                        "`{name}` needs seconds or a duration, such as `{name} = 30` or `{name} = \"500ms\"`"
                    ),
                );
                None
            }
        }
    }

    fn ttl_jitter(&mut self, report: &mut Report) -> Option<u8> {
        let value = self.expression("ttl_jitter", report)?;
        let percent = match &value {
            Expr::Lit(ExprLit {
                lit: Lit::Int(number),
                ..
            }) => number.base10_parse().ok(),
            Expr::Lit(ExprLit {
                lit: Lit::Str(text),
                ..
            }) => text
                .value()
                .strip_suffix('%')
                .and_then(|number| number.trim_end().parse().ok()),
            _ => None,
        };
        let percent = percent.filter(|percent| *percent <= MAX_JITTER);
        if percent.is_none() {
            report.at(
                value,
                format!(
                    "`ttl_jitter` needs whole percent from 0 to {MAX_JITTER}, such as `ttl_jitter = 10`"
                ),
            );
        }
        percent
    }

    fn refresh(
        &mut self,
        may_be_stale: bool,
        function: &Function,
        report: &mut Report,
    ) -> RefreshArg {
        let written = self.expression("refresh", report);
        let Some(text) = written.and_then(|value| self.literal_text(value, "refresh", report))
        else {
            return RefreshArg::Caller;
        };
        if text.value() != "background" {
            report.at(
                &text,
                "`refresh` has one value, `refresh = \"background\"`; without `refresh`, one caller refreshes and waits",
            );
            return RefreshArg::Caller;
        }
        if !may_be_stale {
            report.at(
                &text,
                "without `grace` no value is ever stale, so there is nothing to refresh; add `grace = \"10m\"` or a `policy`",
            );
        }
        if let Some(problem) = borrowed::problem(function) {
            report.at(&text, problem);
        }
        RefreshArg::Background(text.span())
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
                "`version` needs a whole number of at least 1, such as `version = 2`",
            );
        }
        version
    }

    fn eviction(&mut self, function: &Function, report: &mut Report) -> EvictArgs {
        let before = self.flag("before", report);
        let always = self.flag("always", report);
        let fence = self.flag("fence", report);
        let all_entries = self.flag("all_entries", report);
        let targeted = !self.lacks(&["key", "pattern", "tag"]);
        match (&all_entries, targeted) {
            (None, false) => {
                let targets = "`key = \"event:<id>\"`, `tag = \"events\"`, `pattern = \"event:*\"` or `all_entries`";
                self.missing(
                    format!("`#[cache_evict]` needs something to evict: {targets}"),
                    report,
                );
            }
            (Some(name), true) => report.at(
                name,
                "`all_entries` already covers every key, tag and pattern; leave one of them out",
            ),
            _ => {}
        }
        if let Some(name) = fence.as_ref().filter(|_| self.lacks(&["key", "tag"])) {
            report.at(
                name,
                "`fence` needs a `key` or a `tag`: the keys that a pattern matches are not known before the body; name the keys, or leave `fence` out",
            );
        }
        let refusal = |kind| match (&before, &always, &fence) {
            (Some(_), _, _) => {
                Some("is not known `before` the body runs; use parameters, or leave `before` out")
            }
            (None, _, Some(_)) if kind != Kind::Pattern => Some(
                "is not known when `fence` is placed, before the body; use parameters, or leave `fence` out",
            ),
            (None, Some(_), _) => Some(
                "does not exist when the body fails, and `always` evicts then too; use parameters, or leave `always` out",
            ),
            _ => None,
        };
        let mut templates = Vec::new();
        // The order in which the site lists them.
        for (name, kind) in [
            ("key", Kind::Key),
            ("pattern", Kind::Pattern),
            ("tag", Kind::Tag),
        ] {
            for text in self.texts(name, report) {
                let resolver = Resolver::new(function, refusal(kind), report);
                templates.push(resolver.resolve(text, kind));
            }
        }
        let what = if all_entries.is_some() {
            Targets::AllEntries
        } else {
            Targets::Matching(templates)
        };
        EvictArgs {
            what,
            before: before.is_some(),
            always: always.is_some(),
            fence: fence.is_some(),
        }
    }
}

/// Returns whether a closure takes exactly the value.
fn takes_one_value(closure: &ExprClosure, name: &str, report: &mut Report) -> bool {
    let found = match closure.inputs.len() {
        1 => return true,
        0 => "none".to_owned(),
        more => more.to_string(),
    };
    report.at(
        closure,
        format!(
            "the closure of `{name}` takes one parameter, not {found}; write `{name} = |value| …`"
        ),
    );
    false
}

#[cfg(test)]
mod tests;
