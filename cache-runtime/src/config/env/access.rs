//! The variables of users, passwords and certificates, those of sentinels with `SENTINEL_` after `REDIS_`.

use super::URL;
use super::variables::Variables;
use crate::config::access::{Fields, variable};
use crate::config::problem::Problem;
use crate::config::{Secret, Tls, text};

/// Reads the variables of one kind of server. `passwords` are variables that win over the usual one. Returns the variables that
/// ask for something.
pub(super) fn read(
    mut fields: Fields<'_>,
    vars: &mut Variables,
    passwords: &[&str],
) -> Vec<String> {
    let prefix = fields.prefix;
    let variable = |name: &str| variable(&format!("{prefix}{name}"));
    let mut given = Vec::new();
    let username = variable("username");
    if let Some(text) = vars.take_verbatim(&username) {
        *fields.username = Some(text);
        given.push(username);
    }
    let file = variable("password_file");
    if let Some(path) = vars.take(&file) {
        fields.set_password_file(path.into());
        given.push(file.clone());
    }
    let usual = variable("password");
    for name in [&*usual].iter().chain(passwords) {
        let Some(password) = vars.take_verbatim(name) else {
            continue;
        };
        given.push((*name).to_owned());
        if vars.is_given(&file) {
            let what = format!("cannot be combined with {file}; unset one of them");
            vars.problems.push(Problem::new(*name, what));
        } else {
            fields.set_password(Secret::from(password));
        }
    }
    given.extend(tls(&mut fields, vars));
    for (name, path) in [
        ("tls_cert", &mut *fields.tls_cert),
        ("tls_key", &mut *fields.tls_key),
    ] {
        let name = variable(name);
        if let Some(given_path) = vars.take(&name) {
            *path = Some(given_path.into());
            given.push(name);
        }
    }
    given
}

/// Reads whether connections are encrypted. Returns the variable that asks for it.
fn tls(fields: &mut Fields<'_>, vars: &mut Variables) -> Option<String> {
    let [on, authority] =
        ["tls", "tls_ca"].map(|name| variable(&format!("{}{name}", fields.prefix)));
    let switch = vars.take_as(&on, text::switch, "`true` or `false`");
    let ca = vars.take(&authority);
    // An address encrypts connections to Redis only.
    let is_by_address = fields.prefix.is_empty() && vars.is_given(URL);
    match (switch, ca) {
        (Some(false), Some(_)) => {
            let what =
                format!("is off, but {authority} is set, which turns it on; unset one of them");
            vars.problems.push(Problem::new(on, what));
            None
        }
        (Some(false), None) if is_by_address && *fields.tls != Tls::Off => {
            let what = format!("is off, but {URL} starts with `rediss`; use `redis` instead");
            vars.problems.push(Problem::new(on, what));
            None
        }
        (Some(false), None) => {
            *fields.tls = Tls::Off;
            None
        }
        (_, Some(ca)) => {
            *fields.tls = Tls::Ca(ca.into());
            Some(authority)
        }
        (Some(true), None) => {
            if *fields.tls == Tls::Off {
                *fields.tls = Tls::WebRoots;
            }
            Some(on)
        }
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Credentials};

    const URL: (&str, &str) = ("REDIS_URL", "rediss://host");
    const SENTINELS: (&str, &str) = ("REDIS_URL", "rediss+sentinel://host/main");

    fn read(vars: &[(&str, &str)]) -> Config {
        Config::from_vars(vars.iter().copied()).unwrap_or_else(|error| panic!("{error}"))
    }

    fn problem(vars: &[(&str, &str)]) -> String {
        let config = Config::from_vars(vars.iter().copied());
        config
            .map(|config| config.to_string())
            .expect_err("wrong")
            .to_string()
    }

    #[test]
    fn redis_and_its_sentinels_have_the_same_variables() {
        let config = read(&[
            SENTINELS,
            ("REDIS_USERNAME", "app"),
            ("REDIS_PASSWORD_FILE", "/pw"),
            ("REDIS_TLS_CERT", "/c.pem"),
            ("REDIS_TLS_KEY", "/k.pem"),
            ("REDIS_SENTINEL_USERNAME", "watcher"),
            ("REDIS_SENTINEL_PASSWORD", "hunter2"),
            ("REDIS_SENTINEL_TLS_CA", "/ca.pem"),
            ("REDIS_SENTINEL_TLS_CERT", "/sc.pem"),
            ("REDIS_SENTINEL_TLS_KEY", "/sk.pem"),
        ]);

        let printed = config.to_string();
        for line in [
            "username = app",
            "password = none",
            "password_file = /pw",
            "tls = on",
            "tls_cert = /c.pem",
            "tls_key = /k.pem",
            "sentinel_username = watcher",
            "sentinel_password = ***",
            "sentinel_password_file = none",
            "sentinel_tls = on, trusting /ca.pem",
            "sentinel_tls_cert = /sc.pem",
            "sentinel_tls_key = /sk.pem",
        ] {
            assert!(
                printed.lines().any(|printed| printed == line),
                "{line}: {printed}"
            );
        }
        assert_eq!(read(&[SENTINELS]).sentinel_tls, Tls::Off);
    }

    #[test]
    fn incomplete_and_contradictory_variables_are_problems() {
        for (vars, expected) in [
            (
                &[URL, ("REDIS_TLS_CERT", "/c")][..],
                "REDIS_TLS_CERT: is set without REDIS_TLS_KEY",
            ),
            (
                &[URL, ("REDIS_TLS_KEY", "/k")],
                "REDIS_TLS_KEY: is set without REDIS_TLS_CERT",
            ),
            (
                &[
                    ("REDIS_URL", "redis://host"),
                    ("REDIS_TLS_CERT", "/c"),
                    ("REDIS_TLS_KEY", "/k"),
                ],
                "REDIS_TLS_CERT: is set, but connections are not encrypted; also set REDIS_TLS",
            ),
            (
                &[URL, ("REDIS_PASSWORD", "a"), ("REDIS_PASSWORD_FILE", "/pw")],
                "REDIS_PASSWORD: cannot be combined with REDIS_PASSWORD_FILE",
            ),
            (
                &[SENTINELS, ("REDIS_SENTINEL_USERNAME", "a")],
                "REDIS_SENTINEL_USERNAME: is set without a password; also set REDIS_SENTINEL_PASSWORD",
            ),
            (
                &[
                    SENTINELS,
                    ("REDIS_SENTINEL_TLS", "off"),
                    ("REDIS_SENTINEL_TLS_CA", "/ca"),
                ],
                "REDIS_SENTINEL_TLS: is off, but REDIS_SENTINEL_TLS_CA is set",
            ),
            (
                &[URL, ("REDIS_SENTINEL_PASSWORD", "a")],
                "REDIS_SENTINEL_PASSWORD: is set, but the address names no sentinels",
            ),
            (
                &[("REDIS_SENTINEL_TLS", "on")],
                "REDIS_SENTINEL_TLS: is set, but no Redis server",
            ),
        ] {
            let problem = problem(vars);
            assert!(problem.contains(expected), "{expected}: {problem}");
        }
    }

    #[test]
    fn a_password_in_the_environment_replaces_every_source_in_the_code() {
        let defaults = || {
            let credentials = Credentials::new(|| async { Ok::<_, std::fmt::Error>("token") });
            Config::default().username("app").credentials(credentials)
        };
        let over = |vars: &[(&str, &str)]| {
            Config::from_vars_over(defaults(), vars.iter().copied()).expect("valid")
        };

        let untouched = over(&[URL]);
        let password = over(&[URL, ("DEV_REDIS_PASSWORD", "a")]);
        let file = over(&[
            ("REDIS_URL", "rediss://app:b@host"),
            ("REDIS_PASSWORD_FILE", "/pw"),
        ]);

        assert!(untouched.credentials.is_some());
        assert!(
            untouched.to_string().contains("password = from a function"),
            "{untouched}"
        );
        assert!(password.credentials.is_none() && password.password.is_some());
        assert!(file.credentials.is_none() && file.password.is_none());
        let both = defaults().password("a").check().expect_err("wrong");
        assert!(
            both.to_string()
                .contains("credentials: cannot be combined with password"),
            "{both}"
        );
    }
}
