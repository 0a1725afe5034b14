//! What a server asks for: user, password and certificates. Files are read and functions are called again for each connection, so
//! that what they provide can be replaced while the cache runs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use redis::{RedisConnectionInfo, RedisError};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;

use super::file::{contents, unusable};
use super::introduction::refusal;
use super::{advised, tls};
use crate::config::{Access, Address, Credentials, Login, Secret};
use crate::error::{Error, ErrorKind};

/// Provides what one kind of server asks for.
pub(super) struct Gate {
    files: Arc<Files>,
    /// Everything except user and password.
    session: RedisConnectionInfo,
}

/// What one connection shows to its server.
pub(super) struct Pass {
    pub(super) session: RedisConnectionInfo,
    pub(super) tls: Option<tls::Client>,
}

impl Gate {
    /// Reads the files once, so that a wrong one is an error at the start.
    pub(super) fn new(access: Access, session: RedisConnectionInfo) -> Result<Self, Error> {
        let files = Files {
            certificates: tls::Certificates::new(&access)?,
            access,
        };
        files.read()?;
        Ok(Self {
            files: Arc::new(files),
            session,
        })
    }

    /// Returns whether connections are encrypted.
    pub(super) fn encrypts(&self) -> bool {
        self.files.certificates.is_some()
    }

    /// Returns what the next connection shows. A function of the user may take `limit`.
    pub(super) async fn pass(&self, limit: Duration) -> Result<Pass, Error> {
        let (password, tls) = match self.files.is_any() {
            false => self.files.read()?,
            true => {
                let files = Arc::clone(&self.files);
                // A network file system may take long.
                let read = spawn_blocking(move || files.read()).await;
                read.map_err(|error| {
                    let text = "the files of passwords and certificates could not be read";
                    Error::new(ErrorKind::Connection, text).because(error)
                })??
            }
        };
        let Access {
            username,
            credentials,
            ..
        } = &self.files.access;
        let login = match credentials {
            Some(credentials) => Some(ask(credentials.clone(), limit).await?),
            None => password.map(Login::from),
        };
        let mut session = self.session.clone();
        if let Some(login) = login {
            if let Some(username) = login.username.as_ref().or(username.as_ref()) {
                session = session.set_username(username);
            }
            session = session.set_password(login.password.expose());
        }
        Ok(Pass { session, tls })
    }
}

impl Pass {
    /// Returns the error for a rejected handshake.
    pub(super) fn refusal(&self, address: &Address, error: &RedisError) -> Error {
        match self.tls.as_ref().and_then(|tls| tls.late_advice(error)) {
            Some(advice) => advised(address, &advice).because(error.to_string()),
            None => refusal(address, error),
        }
    }
}

/// Asks the function of the user in a task of its own: a panic ends only that task.
async fn ask(credentials: Credentials, limit: Duration) -> Result<Login, Error> {
    let failed = |what: &str| {
        let text = format!("the function of `credentials` {what}");
        Error::new(ErrorKind::Connection, text)
    };
    // A set, because it ends its task when it is dropped.
    let mut task = JoinSet::new();
    task.spawn(async move { credentials.provide().await });
    match timeout(limit, task.join_next()).await {
        Ok(Some(Ok(Ok(login)))) => Ok(login),
        Ok(Some(Ok(Err(error)))) => Err(failed("returned an error").because(error)),
        Ok(Some(Err(_)) | None) => Err(failed("panicked")),
        Err(_) => Err(failed(&format!("did not return within {limit:?}"))),
    }
}

/// What is in files.
struct Files {
    access: Access,
    certificates: Option<tls::Certificates>,
}

impl Files {
    fn is_any(&self) -> bool {
        let certificates = self.certificates.as_ref();
        self.access.password_file.is_some()
            || certificates.is_some_and(tls::Certificates::are_in_files)
    }

    fn read(&self) -> Result<(Option<Secret>, Option<tls::Client>), Error> {
        let password = match &self.access.password_file {
            Some(path) => Some(password(path, &self.access.variable("password_file"))?),
            None => self.access.password.clone(),
        };
        let tls = self.certificates.as_ref().map(tls::Certificates::client);
        Ok((password, tls.transpose()?))
    }
}

/// Reads a password, without the end of its line.
fn password(path: &Path, variable: &str) -> Result<Secret, Error> {
    let text = String::from_utf8(contents(path, variable)?)
        .map_err(|_| unusable(path, variable, "is not Unicode text"))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    match text.is_empty() {
        true => Err(unusable(
            path,
            variable,
            "is empty; write the password into it",
        )),
        false => Ok(Secret::from(text)),
    }
}
