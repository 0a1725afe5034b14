//! Files that variables name.

use std::fs;
use std::path::Path;

use crate::error::{Error, ErrorKind};

/// Reads a file.
pub(super) fn contents(path: &Path, variable: &str) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|error| {
        let what = "cannot be read; check that it exists and that this process may read it";
        unusable(path, variable, what).because(error)
    })
}

/// Returns the error for a file that cannot be used.
pub(super) fn unusable(path: &Path, variable: &str, what: &str) -> Error {
    let path = path.display();
    Error::new(
        ErrorKind::Config,
        format!("the file `{path}` of `{variable}` {what}"),
    )
}
