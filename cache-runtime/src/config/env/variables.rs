//! The variables, read one by one, and their problems.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use tracing::info;

use super::{
    ENV, ENVIRONMENTS, Environment, LIMIT, POLICY, POLICY_FIELDS, SESSION_KEYS, URL, links,
};
use crate::config::options::{SETTINGS, Setting};
use crate::config::problem::Problem;
use crate::config::{access, did_you_mean, text};

/// Which `redis-server` the module `testing` starts: not an option of a cache, and set where tests run.
const TEST_SERVER: &str = "CACHE_TEST_REDIS_SERVER";

/// The variables that are not read yet, and the problems of the others.
pub(super) struct Variables {
    values: BTreeMap<String, OsString>,
    /// The variables that were read and are not empty.
    given: BTreeSet<String>,
    /// Services whose variables look like ours.
    services: BTreeSet<String>,
    pub(super) problems: Vec<Problem>,
}

impl Variables {
    pub(super) fn new<N: Into<OsString>, V: Into<OsString>>(
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let values = variables
            .into_iter()
            .filter_map(|(name, value)| Some((name.into().into_string().ok()?, value.into())))
            .filter(|(name, _)| name.starts_with("CACHE_") || name.contains("REDIS_"))
            .filter(|(name, _)| name != TEST_SERVER)
            .collect();
        Self {
            values,
            given: BTreeSet::new(),
            services: BTreeSet::new(),
            problems: Vec::new(),
        }
    }

    /// Returns whether a variable was there, read or not.
    pub(super) fn is_given(&self, name: &str) -> bool {
        self.given.contains(name)
    }

    /// Returns the names of the unread variables that begin with `root`.
    pub(super) fn beginning_with(&self, root: &str) -> Vec<String> {
        let names = self.values.keys().filter(|name| name.starts_with(root));
        names.cloned().collect()
    }

    /// Returns the value as it is, unless it is empty.
    pub(super) fn take_verbatim(&mut self, name: &str) -> Option<String> {
        let Ok(value) = self.values.remove(name)?.into_string() else {
            self.problems
                .push(Problem::new(name, "is not Unicode text"));
            return None;
        };
        if value.is_empty() {
            return None;
        }
        self.given.insert(name.to_owned());
        Some(value)
    }

    /// Returns the value without white space around it, unless it is empty then.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        let value = self.take_verbatim(name)?;
        Some(value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    /// Returns the value as `read` parses it. A value that it rejects is a problem, unless it comes from Kubernetes.
    pub(super) fn take_as<T>(
        &mut self,
        name: &str,
        read: impl Fn(&str) -> Option<T>,
        allowed: &str,
    ) -> Option<T> {
        let found = self.take(name)?;
        let value = read(&found);
        if value.is_none() && !self.is_of_a_service(name, &found) {
            self.problems.push(Problem::wrong(name, &found, allowed));
        }
        value
    }

    pub(super) fn environment(&mut self) -> Option<Environment> {
        self.take_as(ENV, Environment::of_name, ENVIRONMENTS)
    }

    fn is_of_a_service(&mut self, name: &str, value: &str) -> bool {
        let service = links::service(name, value);
        self.services.extend(service.map(str::to_owned));
        service.is_some()
    }

    /// Reports unread variables with our prefix as problems. Variables that Kubernetes sets are logged in one line.
    pub(super) fn report_unknown(&mut self) {
        for (name, value) in std::mem::take(&mut self.values) {
            let is_ours = name.starts_with("CACHE_") && !value.is_empty();
            if !is_ours || self.is_of_a_service(&name, &value.to_string_lossy()) {
                continue;
            }
            let bare = name.strip_prefix("CACHE_").unwrap_or(&name);
            let advice = match bare {
                "HOST" | "PORT" | "URL" | "ADDRESS" => format!("did you mean `{URL}`?"),
                // CACHE_REDIS_URL means REDIS_URL.
                _ => known().find(|known| known == bare).map_or_else(
                    || did_you_mean(&name, known()),
                    |known| format!("did you mean `{known}`?"),
                ),
            };
            self.problems.push(Problem::new(
                text::shown(&name),
                format!("is not known; {advice}"),
            ));
        }
        if !self.services.is_empty() {
            let services: Vec<_> = self.services.iter().map(String::as_str).collect();
            info!(
                services = services.join(", "),
                "ignored variables that Kubernetes sets for services with these names; `enableServiceLinks: false` in the \
                 pod's spec removes them"
            );
        }
    }
}

/// The names of all variables.
pub(super) fn known() -> impl Iterator<Item = String> {
    let connection = [ENV, URL, SESSION_KEYS].map(str::to_owned);
    let parts = Environment::KNOWN
        .into_iter()
        .flat_map(|env| ["HOST", "PORT", "PASSWORD", "DB"].map(|part| env.variable(part)));
    let policies = POLICY_FIELDS.map(|(suffix, _)| format!("{POLICY}<NAME>{suffix}"));
    connection
        .into_iter()
        .chain(access::variables())
        .chain(parts)
        .chain(SETTINGS.iter().map(Setting::variable))
        .chain(policies)
        .chain([format!("{LIMIT}<NAME>")])
}
