//! What servers ask for before they let the cache in: user, password and certificates. Redis and its sentinels have the same
//! options, those of the sentinels with `sentinel_` in front.

use std::path::PathBuf;

use super::problem::Problem;
use super::{Config, Credentials, Secret, Tls, text};

/// The names of the options, without what is in front for sentinels.
pub(super) const NAMES: [&str; 6] = [
    "username",
    "password",
    "password_file",
    "tls",
    "tls_cert",
    "tls_key",
];

/// What is in front of the options of sentinels.
const SENTINEL: &str = "sentinel_";

/// What one kind of server asks for.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    prefix: &'static str,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) password_file: Option<PathBuf>,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) tls: Tls,
    pub(crate) tls_cert: Option<PathBuf>,
    pub(crate) tls_key: Option<PathBuf>,
}

impl Access {
    /// Returns the variable of an option, such as `REDIS_SENTINEL_TLS_CERT`.
    pub(crate) fn variable(&self, name: &str) -> String {
        variable(&format!("{}{name}", self.prefix))
    }
}

/// Returns the variable of an option with its full name.
pub(super) fn variable(option: &str) -> String {
    format!("REDIS_{}", option.to_ascii_uppercase())
}

/// Returns whether this is the full name of one of the options.
pub(super) fn is_option(option: &str) -> bool {
    NAMES.contains(&option.strip_prefix(SENTINEL).unwrap_or(option))
}

/// The full names of all options.
pub(super) fn options() -> impl Iterator<Item = String> {
    ["", SENTINEL]
        .into_iter()
        .flat_map(|prefix| NAMES.map(|name| format!("{prefix}{name}")))
}

/// The names of all variables.
pub(super) fn variables() -> impl Iterator<Item = String> {
    let authorities = ["", SENTINEL].map(|prefix| format!("{prefix}tls_ca"));
    options().chain(authorities).map(|option| variable(&option))
}

/// The options of one kind of server, to be changed.
pub(super) struct Fields<'a> {
    pub(super) prefix: &'static str,
    pub(super) username: &'a mut Option<String>,
    pub(super) password: &'a mut Option<Secret>,
    pub(super) password_file: &'a mut Option<PathBuf>,
    /// Sentinels have none.
    pub(super) credentials: Option<&'a mut Option<Credentials>>,
    pub(super) tls: &'a mut Tls,
    pub(super) tls_cert: &'a mut Option<PathBuf>,
    pub(super) tls_key: &'a mut Option<PathBuf>,
}

impl Config {
    /// What Redis asks for.
    pub(crate) fn access(&self) -> Access {
        self.clone().redis_fields().taken()
    }

    /// What the sentinels ask for.
    pub(crate) fn sentinel_access(&self) -> Access {
        self.clone().sentinel_fields().taken()
    }

    pub(super) fn redis_fields(&mut self) -> Fields<'_> {
        Fields {
            prefix: "",
            username: &mut self.username,
            password: &mut self.password,
            password_file: &mut self.password_file,
            credentials: Some(&mut self.credentials),
            tls: &mut self.tls,
            tls_cert: &mut self.tls_cert,
            tls_key: &mut self.tls_key,
        }
    }

    pub(super) fn sentinel_fields(&mut self) -> Fields<'_> {
        Fields {
            prefix: SENTINEL,
            username: &mut self.sentinel_username,
            password: &mut self.sentinel_password,
            password_file: &mut self.sentinel_password_file,
            credentials: None,
            tls: &mut self.sentinel_tls,
            tls_cert: &mut self.sentinel_tls_cert,
            tls_key: &mut self.sentinel_tls_key,
        }
    }

    /// Returns the options with this full name and its kind of server, and the name without what is in front.
    pub(super) fn fields_of<'a>(&mut self, option: &'a str) -> (Fields<'_>, &'a str) {
        match option.strip_prefix(SENTINEL) {
            Some(name) => (self.sentinel_fields(), name),
            None => (self.redis_fields(), option),
        }
    }
}

impl Fields<'_> {
    /// Takes the values, and leaves the defaults.
    pub(super) fn taken(self) -> Access {
        Access {
            prefix: self.prefix,
            username: self.username.take(),
            password: self.password.take(),
            password_file: self.password_file.take(),
            credentials: self.credentials.and_then(Option::take),
            tls: std::mem::take(self.tls),
            tls_cert: self.tls_cert.take(),
            tls_key: self.tls_key.take(),
        }
    }

    /// Sets the password, in place of any other source of it.
    pub(super) fn set_password(&mut self, password: Secret) {
        self.forget_password();
        *self.password = Some(password);
    }

    /// Sets the file of the password, in place of any other source of it.
    pub(super) fn set_password_file(&mut self, path: PathBuf) {
        self.forget_password();
        *self.password_file = Some(path);
    }

    fn forget_password(&mut self) {
        *self.password = None;
        *self.password_file = None;
        if let Some(credentials) = &mut self.credentials {
            **credentials = None;
        }
    }

    /// Sets an option to what a file holds.
    pub(super) fn set(&mut self, name: &str, value: String) {
        match name {
            "username" => *self.username = Some(value),
            "password" => *self.password = Some(value.into()),
            "password_file" => *self.password_file = Some(value.into()),
            "tls_cert" => *self.tls_cert = Some(value.into()),
            "tls_key" => *self.tls_key = Some(value.into()),
            _ => {
                *self.tls = match text::switch(&value) {
                    Some(true) => Tls::WebRoots,
                    Some(false) => Tls::Off,
                    None => Tls::Ca(value.into()),
                }
            }
        }
    }

    /// Returns the options in the order of [`NAMES`], without secrets.
    pub(super) fn show(&self) -> Vec<(String, String)> {
        let given = |text: Option<String>| text.unwrap_or_else(|| "none".to_owned());
        let path =
            |path: &Option<PathBuf>| given(path.as_ref().map(|path| path.display().to_string()));
        let password = match (&self.password, &self.credentials) {
            (Some(_), _) => Some("***".to_owned()),
            (None, Some(Some(_))) => Some("from a function".to_owned()),
            (None, _) => None,
        };
        let values = [
            given(self.username.clone()),
            given(password),
            path(self.password_file),
            self.tls.show(),
            path(self.tls_cert),
            path(self.tls_key),
        ];
        let names = NAMES.map(|name| format!("{}{name}", self.prefix));
        names.into_iter().zip(values).collect()
    }

    /// Returns the full names of the options that are set.
    pub(super) fn set_options(&self) -> Vec<String> {
        let is_set = [
            self.username.is_some(),
            self.password.is_some(),
            self.password_file.is_some(),
            *self.tls != Tls::Off,
            self.tls_cert.is_some(),
            self.tls_key.is_some(),
        ];
        let names = NAMES.into_iter().zip(is_set).filter(|(_, is_set)| *is_set);
        names
            .map(|(name, _)| format!("{}{name}", self.prefix))
            .collect()
    }

    pub(super) fn problems(&self, called: &dyn Fn(&str) -> String, problems: &mut Vec<Problem>) {
        let called = |name: &str| called(&format!("{}{name}", self.prefix));
        let sources = [
            ("password", self.password.is_some()),
            ("password_file", self.password_file.is_some()),
            (
                "credentials",
                self.credentials
                    .as_ref()
                    .is_some_and(|given| given.is_some()),
            ),
        ];
        let mut sources = sources.into_iter().filter(|(_, is_set)| *is_set);
        match (sources.next(), sources.next()) {
            (None, _) if self.username.is_some() => {
                let what = format!("is set without a password; also set {}", called("password"));
                problems.push(Problem::new(called("username"), what));
            }
            (Some((first, _)), Some((second, _))) => {
                let what = format!(
                    "cannot be combined with {}; remove one of them",
                    called(first)
                );
                problems.push(Problem::new(called(second), what));
            }
            _ => {}
        }
        if *self.tls != Tls::Off && !cfg!(feature = "tls") {
            problems.push(Problem::new(
                called("tls"),
                "is on, but cache-runtime was built without its feature `tls`; enable the feature, or turn encryption off",
            ));
        }
        let pair = [("tls_cert", &self.tls_cert), ("tls_key", &self.tls_key)];
        for ((name, path), (other, other_path)) in [(pair[0], pair[1]), (pair[1], pair[0])] {
            if path.is_some() && other_path.is_none() {
                let what = format!(
                    "is set without {}; set both, they may name the same file",
                    called(other)
                );
                problems.push(Problem::new(called(name), what));
            }
        }
        if *self.tls == Tls::Off && self.tls_cert.is_some() {
            let what = format!(
                "is set, but connections are not encrypted; also set {}",
                called("tls")
            );
            problems.push(Problem::new(called("tls_cert"), what));
        }
    }
}
