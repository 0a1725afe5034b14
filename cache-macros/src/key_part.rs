//! The type under `#[derive(KeyPart)]`, and which of its fields or variants the text of a value contains.

use proc_macro2::{Ident, TokenStream, TokenTree};
use quote::ToTokens;
use syn::punctuated::Punctuated;
use syn::{
    Attribute, Data, DataEnum, DeriveInput, Expr, Fields, Generics, Index, Member, Meta, Path,
    Token, Type,
};

use crate::report::{Report, nearest};

/// A type that becomes a part of keys.
pub(crate) struct Derived {
    /// The path of the runtime; `None` is `::cache_runtime`.
    pub(crate) runtime: Option<Path>,
    pub(crate) name: Ident,
    /// With a bound for each field whose type depends on a type parameter.
    pub(crate) generics: Generics,
    pub(crate) bounds: Vec<Type>,
    pub(crate) shape: Shape,
}

/// What a value writes.
pub(crate) enum Shape {
    /// Its fields, in order.
    Fields(Vec<(Member, Type)>),
    /// A hash of its fields.
    Hash(Vec<(Member, Type)>),
    /// The name of its variant.
    Variants(Vec<Ident>),
}

/// Where an argument of `#[key_part(…)]` may be written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Struct,
    Enum,
    Field,
    Variant,
}

struct Known {
    name: &'static str,
    on: &'static [Place],
    example: &'static str,
    elsewhere: &'static str,
}

#[rustfmt::skip]
const KNOWN: [Known; 3] = [
    Known { name: "crate", on: &[Place::Struct, Place::Enum], example: "crate = my_crate::cache_runtime", elsewhere: "`crate` belongs on the type" },
    Known { name: "hash",  on: &[Place::Struct],              example: "hash",                            elsewhere: "`hash` belongs on a struct; it hashes all fields together" },
    Known { name: "skip",  on: &[Place::Field],               example: "skip",                            elsewhere: "`skip` belongs on a field of a struct" },
];

/// Reads the type, and reports everything that prevents the derive.
pub(crate) fn read(input: DeriveInput, report: &mut Report) -> Derived {
    let place = match &input.data {
        Data::Enum(_) => Place::Enum,
        Data::Struct(_) | Data::Union(_) => Place::Struct,
    };
    let arguments = arguments(&input.attrs, place, report);
    let is_hashed = arguments.iter().any(|argument| argument.name == "hash");
    let runtime = arguments.into_iter().find_map(|argument| argument.path);
    let shape = match &input.data {
        Data::Struct(data) => {
            let fields = fields(&data.fields, report);
            match is_hashed {
                true => Shape::Hash(fields),
                false => Shape::Fields(fields),
            }
        }
        Data::Enum(data) => Shape::Variants(variants(&input.ident, data, report)),
        Data::Union(data) => {
            report.at(
                data.union_token,
                "`KeyPart` cannot be derived for a union; implement it by hand",
            );
            Shape::Fields(Vec::new())
        }
    };
    Derived {
        runtime,
        bounds: bounds(&input.generics, &shape),
        name: input.ident,
        generics: input.generics,
        shape,
    }
}

/// Returns the fields that are written.
fn fields(fields: &Fields, report: &mut Report) -> Vec<(Member, Type)> {
    let mut written = Vec::new();
    for (at, field) in fields.iter().enumerate() {
        if !arguments(&field.attrs, Place::Field, report).is_empty() {
            continue;
        }
        let member = match &field.ident {
            Some(name) => Member::Named(name.clone()),
            None => Member::Unnamed(Index::from(at)),
        };
        written.push((member, field.ty.clone()));
    }
    written
}

/// Returns the variants, which must not have fields.
fn variants(name: &Ident, data: &DataEnum, report: &mut Report) -> Vec<Ident> {
    if data.variants.is_empty() {
        report.at(
            name,
            format!("`{name}` has no values; remove the derive of `KeyPart`"),
        );
    }
    for variant in &data.variants {
        arguments(&variant.attrs, Place::Variant, report);
        for field in &variant.fields {
            arguments(&field.attrs, Place::Variant, report);
        }
        if !matches!(variant.fields, Fields::Unit) {
            let variant_name = &variant.ident;
            report.at(
                variant,
                format!(
                    "`{variant_name}` has fields, and only enums without them can derive `KeyPart`; implement it by hand for `{name}`"
                ),
            );
        }
    }
    let variants = data.variants.iter();
    variants.map(|variant| variant.ident.clone()).collect()
}

/// Returns the types of the fields that are key parts only if a type parameter is.
fn bounds(generics: &Generics, shape: &Shape) -> Vec<Type> {
    let (Shape::Fields(fields) | Shape::Hash(fields)) = shape else {
        return Vec::new();
    };
    let depends = |ty: &Type| {
        let tokens = ty.to_token_stream();
        generics
            .type_params()
            .any(|parameter| mentions(tokens.clone(), &parameter.ident))
    };
    let types = fields.iter().map(|(_, ty)| ty);
    types.filter(|ty| depends(ty)).cloned().collect()
}

fn mentions(tokens: TokenStream, name: &Ident) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(word) => word == *name,
        TokenTree::Group(group) => mentions(group.stream(), name),
        TokenTree::Punct(_) | TokenTree::Literal(_) => false,
    })
}

struct Argument {
    name: &'static str,
    path: Option<Path>,
}

/// Returns the arguments of all `#[key_part(…)]` among these attributes.
fn arguments(attributes: &[Attribute], place: Place, report: &mut Report) -> Vec<Argument> {
    let mut arguments: Vec<Argument> = Vec::new();
    for attribute in attributes {
        if !attribute.path().is_ident("key_part") {
            continue;
        }
        match attribute.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated) {
            Ok(list) => {
                for meta in list {
                    match argument(&meta, place) {
                        Ok(Argument { name, .. })
                            if arguments.iter().any(|earlier| earlier.name == name) =>
                        {
                            report.at(
                                &meta,
                                format!("`{name}` is already set; leave one of the two out"),
                            );
                        }
                        Ok(argument) => arguments.push(argument),
                        Err(message) => report.at(&meta, message),
                    }
                }
            }
            Err(error) => report.add(error),
        }
    }
    arguments
}

fn argument(meta: &Meta, place: Place) -> Result<Argument, String> {
    let word = meta.path().to_token_stream().to_string();
    let Some(known) = KNOWN.iter().find(|known| known.name == word) else {
        let here: Vec<&str> = KNOWN
            .iter()
            .filter(|known| known.on.contains(&place))
            .map(|known| known.name)
            .collect();
        let advice = match nearest(&word, here.iter().copied()) {
            _ if here.is_empty() => "; a variant has no arguments".to_owned(),
            Some(near) => format!("; did you mean `{near}`?"),
            None => format!(" (known: `{}`)", here.join("`, `")),
        };
        return Err(format!("unknown argument `{word}`{advice}"));
    };
    if !known.on.contains(&place) {
        return Err(known.elsewhere.to_owned());
    }
    let example = known.example;
    match (known.name, meta) {
        ("crate", Meta::NameValue(pair)) => match &pair.value {
            Expr::Path(path) if path.qself.is_none() => Ok(Argument {
                name: known.name,
                path: Some(path.path.clone()),
            }),
            _ => Err(format!("`crate` needs a path, such as `{example}`")),
        },
        ("crate", _) => Err(format!("`crate` needs a path, such as `{example}`")),
        (name, Meta::Path(_)) => Ok(Argument { name, path: None }),
        (name, _) => Err(format!("`{name}` takes no value; write it alone")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(written: &str) -> Vec<String> {
        let mut report = Report::default();
        read(syn::parse_str(written).expect(written), &mut report);
        report.messages()
    }

    #[test]
    fn mistakes_are_reported_with_advice() {
        let table = [
            (
                "enum Kind { All, Of(u8), At { day: u8 } }",
                &[
                    "`Of` has fields, and only enums without them can derive `KeyPart`; implement it by hand for `Kind`",
                    "`At` has fields, and only enums without them can derive `KeyPart`; implement it by hand for `Kind`",
                ][..],
            ),
            (
                "enum Never {}",
                &["`Never` has no values; remove the derive of `KeyPart`"],
            ),
            (
                "union Bits { a: u8 }",
                &["`KeyPart` cannot be derived for a union; implement it by hand"],
            ),
            (
                "#[key_part(hsh, salt = 1)] struct A(u8);",
                &[
                    "unknown argument `hsh`; did you mean `hash`?",
                    "unknown argument `salt` (known: `crate`, `hash`)",
                ],
            ),
            (
                "#[key_part(skip)] struct A(#[key_part(hash)] u8, #[key_part(crate = a)] u8);",
                &[
                    "`skip` belongs on a field of a struct",
                    "`hash` belongs on a struct; it hashes all fields together",
                    "`crate` belongs on the type",
                ],
            ),
            (
                "#[key_part(hash)] enum Kind { #[key_part(rename)] All }",
                &[
                    "`hash` belongs on a struct; it hashes all fields together",
                    "unknown argument `rename`; a variant has no arguments",
                ],
            ),
            (
                "#[key_part(hash, hash, crate = 1)] struct A(#[key_part(skip = 1)] u8);",
                &[
                    "`hash` is already set; leave one of the two out",
                    "`crate` needs a path, such as `crate = my_crate::cache_runtime`",
                    "`skip` takes no value; write it alone",
                ],
            ),
            (
                "#[key_part] struct A(u8);",
                &["expected attribute arguments in parentheses: #[key_part(...)]"],
            ),
        ];

        for (written, wanted) in table {
            assert_eq!(messages(written), wanted, "{written}");
        }
    }

    #[test]
    fn only_generic_fields_get_a_bound() {
        let written = "struct A<T: Row, const N: usize> { a: Vec<T>, b: [u8; N], c: T::Id, d: u8, #[key_part(skip)] e: T }";
        let mut report = Report::default();

        let derived = read(syn::parse_str(written).expect(written), &mut report);

        let bounds: Vec<String> = derived
            .bounds
            .iter()
            .map(|ty| ty.to_token_stream().to_string())
            .collect();
        assert_eq!(bounds, ["Vec < T >", "T :: Id"]);
        assert_eq!(report.messages(), [""; 0]);
    }
}
