//! Collects errors, so that the user sees all of them at once, and suggests names for misspelt names.

use proc_macro2::{Ident, Span, TokenStream};
use quote::ToTokens;
use syn::ext::IdentExt;

/// All errors of an attribute.
#[derive(Default)]
pub(crate) struct Report {
    errors: Option<syn::Error>,
}

impl Report {
    /// Adds an error that underlines `place`.
    pub(crate) fn at(&mut self, place: impl ToTokens, message: impl AsRef<str>) {
        self.add(syn::Error::new_spanned(place, message.as_ref()));
    }

    /// Adds an error that underlines the attribute itself.
    pub(crate) fn at_attribute(&mut self, message: impl AsRef<str>) {
        self.add(syn::Error::new(Span::call_site(), message.as_ref()));
    }

    /// Adds an error from syn.
    pub(crate) fn add(&mut self, error: syn::Error) {
        match &mut self.errors {
            Some(errors) => errors.combine(error),
            None => self.errors = Some(error),
        }
    }

    /// Returns the errors as `compile_error!` calls; no tokens if there are no errors.
    pub(crate) fn into_tokens(self) -> Option<TokenStream> {
        self.errors.map(|errors| errors.to_compile_error())
    }
}

#[cfg(test)]
impl Report {
    /// Returns the messages, without the places.
    pub(crate) fn messages(self) -> Vec<String> {
        let errors = self.errors.into_iter().flatten();
        errors.map(|error| error.to_string()).collect()
    }
}

/// Returns the known name that is most similar to `word`, if any is similar enough.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Below this similarity a suggestion confuses more than it helps.
    const ALIKE: f64 = 0.7;

    let likeness = |name: &str| {
        strsim::normalized_damerau_levenshtein(word, name)
            .max(strsim::jaro_winkler(word, name) - 0.1)
    };
    known
        .into_iter()
        .map(|name| (likeness(name), name))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, name)| name)
}

/// The same for the names of the function.
pub(crate) fn nearest_name<'a>(word: &str, known: &'a [Ident]) -> Option<&'a Ident> {
    let names: Vec<String> = known.iter().map(|name| name.unraw().to_string()).collect();
    let near = nearest(word, names.iter().map(String::as_str))?;
    known.iter().find(|name| name.unraw() == near)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelled_name_is_suggested() {
        let known = ["cache", "condition", "key", "none_ttl", "ttl", "unless"];

        for (slip, meant) in [
            ("tll", "ttl"),
            ("keys", "key"),
            ("nonettl", "none_ttl"),
            ("conditon", "condition"),
        ] {
            assert_eq!(nearest(slip, known), Some(meant), "{slip}");
        }
        assert_eq!(nearest("refresh", known), None);
    }

    #[test]
    fn every_error_is_kept() {
        let mut report = Report::default();
        report.at_attribute("one");
        report.at_attribute("two");

        let tokens = report.into_tokens().expect("errors").to_string();

        assert_eq!(tokens.matches("compile_error").count(), 2);
    }
}
