//! The checked arguments of `#[rate_limit]`.

use std::collections::HashSet;

use proc_macro2::TokenStream;
use syn::{Expr, ExprLit, ExprUnary, Lit, LitStr, Path, UnOp};

use crate::function::Function;
use crate::report::Report;
use crate::target::Template;
use crate::written::{Attribute, Written};

/// The checked arguments of `#[rate_limit]`.
pub(crate) struct Limiting {
    /// The path of the runtime; `None` is `::cache_runtime`.
    pub(crate) runtime: Option<Path>,
    pub(crate) limiter: Option<Expr>,
    /// The policies that are decided together.
    pub(crate) policies: Vec<LitStr>,
    /// The client whose calls are counted.
    pub(crate) client: Template,
    /// The cost of a call; `None` is 1.
    pub(crate) cost: Option<Expr>,
}

/// The longest name of a policy, the same as at run time.
const MAX_NAME: usize = 64;

/// Reads and checks the arguments of `#[rate_limit]` on `function`. The result is usable only if the report stays empty.
pub(crate) fn check(
    tokens: TokenStream,
    function: &Function,
    report: &mut Report,
) -> Option<Limiting> {
    let mut written = Written::read(Attribute::RateLimit, tokens, report);
    let runtime = written.path("crate", report);
    let limiter = written.expression("limiter", report);
    let policies = written.policies(report);
    let client = written.one_key(function, report);
    let cost = written.cost(report);
    Some(Limiting {
        runtime,
        limiter,
        policies,
        client: client?,
        cost,
    })
}

impl Written {
    fn policies(&mut self, report: &mut Report) -> Vec<LitStr> {
        let example = self.attribute.example("policy");
        if self.lacks(&["policy"]) {
            let written = self.attribute.written();
            self.missing(
                format!("`{written}` needs a policy, such as `{example}`"),
                report,
            );
        }
        let policies = self.texts("policy", report);
        let mut seen = HashSet::new();
        for policy in &policies {
            let name = policy.value();
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
            if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(is_plain) {
                report.at(
                    policy,
                    format!("a policy name has 1 to {MAX_NAME} ASCII letters, digits, `_`, `-` and `.`; write one such as `{example}`"),
                );
            } else if !seen.insert(name.clone()) {
                report.at(
                    policy,
                    format!("`{name}` is already named; leave one of the two out"),
                );
            }
        }
        policies
    }

    fn cost(&mut self, report: &mut Report) -> Option<Expr> {
        let cost = self.expression("cost", report)?;
        let problem = match &cost {
            Expr::Lit(ExprLit {
                lit: Lit::Int(units),
                ..
            }) => match units.base10_parse::<u32>() {
                Ok(0) => Some(
                    "is 0 for every call, so no call is limited; leave the attribute out, or write an expression",
                ),
                Ok(_) => None,
                Err(_) => Some("is at most 4294967295, a `u32`; write a smaller one"),
            },
            Expr::Lit(_)
            | Expr::Unary(ExprUnary {
                op: UnOp::Neg(_), ..
            }) => {
                Some("needs a whole number, such as `cost = 5`, or an expression that is a `u32`")
            }
            _ => return Some(cost),
        };
        if let Some(problem) = problem {
            report.at(&cost, format!("`cost` {problem}"));
        }
        Some(cost)
    }
}
