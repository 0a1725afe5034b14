//! The arguments of an attribute as written: parsed loosely, each with its span.

use proc_macro2::{Ident, TokenStream, TokenTree};
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Expr, ExprLit, Lit, LitStr, Path, Token};

use crate::report::{Report, nearest};

use Attribute::{CacheEvict, CachePut, Cacheable, RateLimit};

/// The four attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attribute {
    Cacheable,
    CachePut,
    CacheEvict,
    RateLimit,
}

/// An argument that attributes accept. A word that has a different meaning on different attributes has several rows.
struct Known {
    name: &'static str,
    on: &'static [Attribute],
    /// How it is written.
    example: &'static str,
    /// Advice for a caching attribute that does not accept it.
    elsewhere: &'static str,
    /// Advice for a rate limit that does not accept it.
    limiting: &'static str,
}

const ALL: &[Attribute] = &[Cacheable, CachePut, CacheEvict, RateLimit];
const CACHING: &[Attribute] = &[Cacheable, CachePut, CacheEvict];
const READING: &[Attribute] = &[Cacheable];
const STORING: &[Attribute] = &[Cacheable, CachePut];
const EVICTING: &[Attribute] = &[CacheEvict];
const LIMITING: &[Attribute] = &[RateLimit];

const NOTHING_STORED: &str = "an eviction stores nothing";
const ONE_KEY: &str = "a cached function needs one `key`";
const NOTHING_REMOVED: &str = "a cached function removes nothing";
const PUT_FENCES: &str = "`#[cache_put]` always fences, and `#[cacheable]` needs no fence";
const NOTHING_READ: &str = "only `#[cacheable]` finds stale values to refresh";
const FREE_TO_OMIT: &str = "any other key may omit arguments; remove it here";
const DROPPED_ANYWAY: &str = "puts and evictions drop local values by themselves; leave it out";
const NOT_COUNTED: &str = "a cache counts no calls; leave it out, or add a `#[rate_limit]`";
const ASKS_A_CACHE: &str = "a caching attribute uses a cache; write `cache = self.cache`";

const NO_CACHE: &str = "a rate limit stores and removes nothing; leave it out";
const ONE_CLIENT: &str = "a rate limit needs one `key`, which names the client";
const ASKS_A_LIMITER: &str = "a rate limit uses a limiter; write `limiter = self.limiter`";
const ALWAYS_ASKED: &str =
    "a rate limit counts every call; write a `cost` that is 0 for a free call";
const POLICYS_TIME: &str = "the policy defines the time window; leave it out";

#[rustfmt::skip]
const KNOWN: [Known; 26] = [
    Known { name: "all_entries",  on: EVICTING, example: "all_entries",                        elsewhere: ONE_KEY,         limiting: NO_CACHE },
    Known { name: "always",       on: EVICTING, example: "always",                             elsewhere: NOTHING_REMOVED, limiting: NO_CACHE },
    Known { name: "any_type",     on: STORING,  example: "any_type",                           elsewhere: NOTHING_STORED,  limiting: NO_CACHE },
    Known { name: "before",       on: EVICTING, example: "before",                             elsewhere: NOTHING_REMOVED, limiting: NO_CACHE },
    Known { name: "cache",        on: CACHING,  example: "cache = self.cache",                 elsewhere: "",              limiting: ASKS_A_LIMITER },
    Known { name: "condition",    on: CACHING,  example: "condition = id > 0",                 elsewhere: "",              limiting: ALWAYS_ASKED },
    Known { name: "cost",         on: LIMITING, example: "cost = 5",                           elsewhere: NOT_COUNTED,     limiting: "" },
    Known { name: "crate",        on: ALL,      example: "crate = my_crate::cache_runtime",    elsewhere: "",              limiting: "" },
    Known { name: "fence",        on: EVICTING, example: "fence",                              elsewhere: PUT_FENCES,      limiting: NO_CACHE },
    Known { name: "grace",        on: STORING,  example: "grace = \"10m\"",                    elsewhere: NOTHING_STORED,  limiting: NO_CACHE },
    Known { name: "ignore",       on: READING,  example: "ignore = [db, now]",                 elsewhere: FREE_TO_OMIT,    limiting: FREE_TO_OMIT },
    Known { name: "key",          on: CACHING,  example: "key = \"event:<id>\"",               elsewhere: "",              limiting: "" },
    Known { name: "key",          on: LIMITING, example: "key = \"<user_id>\"",                elsewhere: "",              limiting: "" },
    Known { name: "limiter",      on: LIMITING, example: "limiter = self.limiter",             elsewhere: ASKS_A_CACHE,    limiting: "" },
    Known { name: "local",        on: READING,  example: "local = \"5s\"",                     elsewhere: DROPPED_ANYWAY,  limiting: NO_CACHE },
    Known { name: "local_outage", on: READING,  example: "local_outage = \"serve\"",           elsewhere: DROPPED_ANYWAY,  limiting: NO_CACHE },
    Known { name: "none_ttl",     on: STORING,  example: "none_ttl = 30",                      elsewhere: NOTHING_STORED,  limiting: NO_CACHE },
    Known { name: "pattern",      on: EVICTING, example: "pattern = \"event:*\"",              elsewhere: ONE_KEY,         limiting: ONE_CLIENT },
    Known { name: "policy",       on: STORING,  example: "policy = \"events\"",                elsewhere: NOTHING_STORED,  limiting: "" },
    Known { name: "policy",       on: LIMITING, example: "policy = \"payment\"",               elsewhere: "",              limiting: "" },
    Known { name: "refresh",      on: READING,  example: "refresh = \"background\"",           elsewhere: NOTHING_READ,    limiting: NO_CACHE },
    Known { name: "tag",          on: CACHING,  example: "tag = \"events\"",                   elsewhere: "",              limiting: NO_CACHE },
    Known { name: "ttl",          on: STORING,  example: "ttl = 1800",                         elsewhere: NOTHING_STORED,  limiting: POLICYS_TIME },
    Known { name: "ttl_jitter",   on: STORING,  example: "ttl_jitter = 10",                    elsewhere: NOTHING_STORED,  limiting: NO_CACHE },
    Known { name: "unless",       on: STORING,  example: "unless = |value| value.is_empty()",  elsewhere: NOTHING_STORED,  limiting: NO_CACHE },
    Known { name: "version",      on: STORING,  example: "version = 2",                        elsewhere: NOTHING_STORED,  limiting: NO_CACHE },
];

/// Arguments that a user may expect on a rate limit, although the policy sets them.
const OF_A_POLICY: [&str; 7] = [
    "algorithm",
    "burst",
    "limit",
    "penalty",
    "per",
    "rate",
    "window",
];

impl Attribute {
    /// As it is written.
    pub(crate) fn written(self) -> &'static str {
        match self {
            Cacheable => "#[cacheable]",
            CachePut => "#[cache_put]",
            CacheEvict => "#[cache_evict]",
            RateLimit => "#[rate_limit]",
        }
    }

    fn arguments(self) -> impl Iterator<Item = &'static Known> {
        KNOWN.iter().filter(move |known| known.on.contains(&self))
    }

    fn argument(self, name: &str) -> Option<&'static Known> {
        self.arguments().find(|known| known.name == name)
    }

    /// How one of its arguments is written.
    pub(crate) fn example(self, name: &str) -> &'static str {
        self.argument(name).map_or("", |known| known.example)
    }

    fn takes_a_list(self, name: &str) -> bool {
        matches!(
            (self, name),
            (CacheEvict, "key" | "pattern")
                | (_, "tag")
                | (Cacheable, "ignore")
                | (RateLimit, "policy")
        )
    }
}

/// The arguments as written, each at most once and each known to the attribute.
pub(crate) struct Written {
    pub(crate) attribute: Attribute,
    arguments: Vec<Argument>,
    /// Whether a part could not be parsed. Then nothing is reported as missing.
    is_incomplete: bool,
}

struct Argument {
    name: Ident,
    value: Option<Expr>,
}

impl Written {
    /// Parses the parentheses, and reports what is invalid, unknown or duplicated.
    pub(crate) fn read(attribute: Attribute, tokens: TokenStream, report: &mut Report) -> Self {
        let mut written = Self {
            attribute,
            arguments: Vec::new(),
            is_incomplete: false,
        };
        let parser = |input: ParseStream<'_>| {
            while !input.is_empty() {
                if let Err(error) = written.read_one(input, report) {
                    report.add(error);
                    written.is_incomplete = true;
                    skip_to_comma(input)?;
                }
                if !input.is_empty() {
                    input.parse::<Token![,]>()?;
                }
            }
            Ok(())
        };
        if let Err(error) = parser.parse2(tokens) {
            report.add(error);
        }
        written
    }

    fn read_one(&mut self, input: ParseStream<'_>, report: &mut Report) -> syn::Result<()> {
        if !input.peek(syn::Ident::peek_any) {
            let example = self.attribute.example("key");
            return Err(input.error(format!("expected an argument, such as `{example}`")));
        }
        let name = input.call(Ident::parse_any)?;
        let known = self.known(&name, report);
        let value = if input.peek(Token![=]) {
            input.parse::<Token![=]>()?;
            if input.is_empty() || input.peek(Token![,]) {
                None
            } else {
                Some(input.parse()?)
            }
        } else {
            None
        };
        if !input.is_empty() && !input.peek(Token![,]) {
            let example =
                known.map_or_else(|| self.attribute.example("key"), |known| known.example);
            return Err(input.error(format!(
                "expected `,`; arguments are written like `{example}`"
            )));
        }
        match self.arguments.iter().find(|earlier| earlier.name == name) {
            Some(_) if known.is_some_and(|known| self.attribute.takes_a_list(known.name)) => {
                let list = match self.attribute.example(&name.to_string()) {
                    example if example.ends_with(']') => example.to_owned(),
                    _ => format!("{name} = [\"…\", \"…\"]"),
                };
                report.at(
                    &name,
                    format!("`{name}` is already set; write a list, `{list}`"),
                );
            }
            Some(_) => report.at(
                &name,
                format!("`{name}` is already set; leave one of the two out"),
            ),
            None if known.is_some() => self.arguments.push(Argument { name, value }),
            None => {}
        }
        Ok(())
    }

    /// Returns what this attribute accepts under `name`; otherwise reports where it belongs or which name was probably
    /// meant.
    fn known(&self, name: &Ident, report: &mut Report) -> Option<&'static Known> {
        let word = name.to_string();
        let known = self.attribute.argument(&word);
        if known.is_none() {
            let message = match KNOWN.iter().find(|known| known.name == word) {
                Some(known) => self.belongs_elsewhere(known),
                None => self.unknown(&word),
            };
            report.at(name, message);
        }
        known
    }

    fn belongs_elsewhere(&self, known: &Known) -> String {
        let owners: Vec<String> = known
            .on
            .iter()
            .map(|owner| format!("`{}`", owner.written()))
            .collect();
        let owners = match owners.as_slice() {
            [before @ .., last] if !before.is_empty() => {
                format!("{} and {last}", before.join(", "))
            }
            owners => owners.concat(),
        };
        let advice = match self.attribute {
            RateLimit => known.limiting,
            Cacheable | CachePut | CacheEvict => known.elsewhere,
        };
        format!("`{}` belongs to {owners}; {advice}", known.name)
    }

    fn unknown(&self, word: &str) -> String {
        if self.attribute == RateLimit && OF_A_POLICY.contains(&word) {
            return format!(
                "`{word}` belongs to the policy; write `Policy::new(\"payment\").limit(5).per(\"1m\")` where the limiter is created, and `{}` here",
                self.attribute.example("policy")
            );
        }
        let names: Vec<&str> = self.attribute.arguments().map(|known| known.name).collect();
        let suggestion = nearest(word, names.iter().copied())
            .map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        format!(
            "unknown argument `{word}`{suggestion} (known: `{}`)",
            names.join("`, `")
        )
    }

    /// Returns whether none of these arguments was written.
    pub(crate) fn lacks(&self, names: &[&str]) -> bool {
        !self
            .arguments
            .iter()
            .any(|argument| names.iter().any(|name| argument.name == name))
    }

    /// Returns whether a part could not be parsed.
    pub(crate) fn is_incomplete(&self) -> bool {
        self.is_incomplete
    }

    /// Reports a missing argument.
    pub(crate) fn missing(&self, message: String, report: &mut Report) {
        if !self.is_incomplete {
            report.at_attribute(message);
        }
    }

    fn take(&mut self, name: &str) -> Option<Argument> {
        let at = self
            .arguments
            .iter()
            .position(|argument| argument.name == name)?;
        Some(self.arguments.swap_remove(at))
    }

    /// Returns the value of an argument that must have a value.
    pub(crate) fn expression(&mut self, name: &str, report: &mut Report) -> Option<Expr> {
        let argument = self.take(name)?;
        if argument.value.is_none() {
            let example = self.attribute.example(name);
            report.at(
                &argument.name,
                format!("`{name}` needs a value, such as `{example}`"),
            );
        }
        argument.value.map(bare)
    }

    /// Returns an argument that has no value.
    pub(crate) fn flag(&mut self, name: &str, report: &mut Report) -> Option<Ident> {
        let argument = self.take(name)?;
        if let Some(value) = &argument.value {
            report.at(
                value,
                format!("`{name}` takes no value; write it alone, or leave it out"),
            );
        }
        Some(argument.name)
    }

    /// Returns a path as the value.
    pub(crate) fn path(&mut self, name: &str, report: &mut Report) -> Option<Path> {
        match self.expression(name, report)? {
            Expr::Path(path) if path.qself.is_none() => Some(path.path),
            other => {
                let example = self.attribute.example(name);
                report.at(other, format!("`{name}` needs a path, such as `{example}`"));
                None
            }
        }
    }

    /// Returns a string that is not empty.
    pub(crate) fn text(&mut self, name: &str, report: &mut Report) -> Option<LitStr> {
        let value = self.expression(name, report)?;
        let text = self.literal_text(value, name, report)?;
        if text.value().trim().is_empty() {
            let example = self.attribute.example(name);
            report.at(
                &text,
                format!("`{name}` is empty; write one such as `{example}`, or leave it out"),
            );
        }
        Some(text)
    }

    /// Returns a text, or a list of texts.
    pub(crate) fn texts(&mut self, name: &str, report: &mut Report) -> Vec<LitStr> {
        self.listed(name, report)
            .into_iter()
            .filter_map(|text| self.literal_text(text, name, report))
            .collect()
    }

    /// Returns a name, or a list of names.
    pub(crate) fn names(&mut self, name: &str, report: &mut Report) -> Vec<Ident> {
        let example = self.attribute.example(name);
        let mut names = Vec::new();
        for value in self.listed(name, report) {
            match &value {
                Expr::Path(path) if path.qself.is_none() && path.path.get_ident().is_some() => {
                    names.extend(path.path.get_ident().cloned());
                }
                other => report.at(
                    other,
                    format!("`{name}` needs names of parameters, such as `{example}`"),
                ),
            }
        }
        names
    }

    /// Returns a value, or a list of values.
    fn listed(&mut self, name: &str, report: &mut Report) -> Vec<Expr> {
        match self.expression(name, report) {
            Some(Expr::Array(list)) => {
                if list.elems.is_empty() {
                    let example = self.attribute.example(name);
                    report.at(
                        &list,
                        format!("the list is empty; write one such as `{example}`"),
                    );
                }
                list.elems.into_iter().map(bare).collect()
            }
            value => value.into_iter().collect(),
        }
    }

    /// Returns the string literal that `name` needs.
    pub(crate) fn literal_text(
        &self,
        value: Expr,
        name: &str,
        report: &mut Report,
    ) -> Option<LitStr> {
        match value {
            Expr::Lit(ExprLit {
                lit: Lit::Str(text),
                ..
            }) => Some(text),
            other => {
                let example = self.attribute.example(name);
                report.at(
                    other,
                    format!("`{name}` needs a string literal, such as `{example}`"),
                );
                None
            }
        }
    }
}

fn skip_to_comma(input: ParseStream<'_>) -> syn::Result<()> {
    while !input.is_empty() && !input.peek(Token![,]) {
        input.parse::<TokenTree>()?;
    }
    Ok(())
}

/// Removes the invisible group that a `macro_rules!` adds around its arguments.
fn bare(value: Expr) -> Expr {
    match value {
        Expr::Group(group) => bare(*group.expr),
        other => other,
    }
}
