//! The annotated function: signature, attributes, and the body as raw tokens, which this crate does not parse.

use std::collections::HashSet;

use proc_macro2::{Delimiter, Group, Ident, TokenStream, TokenTree};
use quote::ToTokens;
use syn::parse::{Parse, ParseStream, Parser};
use syn::token::Brace;
use syn::{
    Attribute, Block, Expr, FnArg, GenericArgument, Local, Pat, PatType, PathArguments, ReturnType,
    Signature, Stmt, Token, Type, TypeParamBound, Visibility,
};

/// A function with a body.
pub(crate) struct Function {
    pub(crate) attributes: Vec<Attribute>,
    /// `#![…]` inside the body.
    pub(crate) inner_attributes: Vec<Attribute>,
    pub(crate) visibility: Visibility,
    pub(crate) signature: Signature,
    /// Kept, because rustc decides by its span whether the function is the user's and deserves a `dead_code` warning.
    pub(crate) brace: Brace,
    pub(crate) form: Form,
}

/// How a function is asynchronous.
pub(crate) enum Form {
    /// `async fn` with this body.
    Async { body: TokenStream },
    /// The form that `#[async_trait]` generates before this macro runs: a plain function whose body is `Box::pin(async
    /// move { … })`.
    Boxed(Boxed),
    /// Not asynchronous.
    Blocking,
}

/// The parts of `Box::pin(async move { … })`.
pub(crate) struct Boxed {
    /// `Box::pin`
    pub(crate) pin: TokenStream,
    /// The bindings with which `#[async_trait]` begins, such as `let __self = self;`.
    pub(crate) bindings: Vec<Stmt>,
    /// The statements after them.
    pub(crate) body: TokenStream,
    output: Box<Type>,
}

impl Parse for Function {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let attributes = input.call(Attribute::parse_outer)?;
        let visibility = input.parse()?;
        // rustc has already parsed the item, so an item without a signature is another kind of item.
        let signature: Signature = input.parse().map_err(|error| {
            syn::Error::new(
                error.span(),
                "this attribute goes on functions; put it on an `async fn`",
            )
        })?;
        if input.peek(Token![;]) {
            let advice = "this function has no body; put the attribute on its implementations";
            return Err(syn::Error::new_spanned(&signature.ident, advice));
        }
        let content;
        let brace = syn::braced!(content in input);
        let inner_attributes = content.call(Attribute::parse_inner)?;
        let body: TokenStream = content.parse()?;
        let form = if signature.asyncness.is_some() {
            Form::Async { body }
        } else {
            boxed(&signature, body).map_or(Form::Blocking, Form::Boxed)
        };
        Ok(Self {
            attributes,
            inner_attributes,
            visibility,
            signature,
            brace,
            form,
        })
    }
}

impl Function {
    /// Returns the type that the body evaluates to; `None` if the function declares no type.
    pub(crate) fn output(&self) -> Option<&Type> {
        match (&self.form, &self.signature.output) {
            (Form::Boxed(Boxed { output, .. }), _) | (_, ReturnType::Type(_, output)) => {
                Some(output)
            }
            (_, ReturnType::Default) => None,
        }
    }

    /// Returns the statements of the body as they are written.
    pub(crate) fn body(&self) -> TokenStream {
        match &self.form {
            Form::Async { body } | Form::Boxed(Boxed { body, .. }) => body.clone(),
            Form::Blocking => TokenStream::new(),
        }
    }

    /// Returns the names that a placeholder may begin with, except `self`.
    pub(crate) fn parameters(&self) -> Vec<Ident> {
        let mut names = Vec::new();
        for pattern in self.patterns() {
            bound_names(pattern, &mut names);
        }
        // `#[async_trait]` calls a destructured parameter `__arg1`, and `self` `__self`.
        let mut seen = HashSet::new();
        names.retain(|name| !is_async_traits(name) && seen.insert(name.clone()));
        names
    }

    /// Returns the patterns of the arguments, except `self`. Under `#[async_trait]` most of them occur twice.
    pub(crate) fn patterns(&self) -> impl Iterator<Item = &Pat> {
        let taken = self.arguments().map(|argument| &*argument.pat);
        taken.chain(self.bindings().map(|binding| &binding.pat))
    }

    /// Returns the arguments of the signature, except `self`.
    pub(crate) fn arguments(&self) -> impl Iterator<Item = &PatType> {
        self.signature
            .inputs
            .iter()
            .filter_map(|input| match input {
                FnArg::Typed(argument) => Some(argument),
                FnArg::Receiver(_) => None,
            })
    }

    /// Returns the name of an argument, or the names of its parts. Under `#[async_trait]` the body may destructure it.
    pub(crate) fn names_of(&self, argument: &PatType) -> Vec<Ident> {
        let mut names = Vec::new();
        let mut visit = |name: &Ident| {
            names.push(name.clone());
            Inside::Visit
        };
        visit_names(&argument.pat, &mut visit);
        for binding in self.bindings() {
            if let (Pat::Ident(taken), Some(Expr::Path(value))) = (&*argument.pat, value(binding))
                && value.path.is_ident(&taken.ident)
            {
                visit_names(&binding.pat, &mut visit);
            }
        }
        names
    }

    /// Returns the name of `self` where the body begins, if there is a receiver.
    pub(crate) fn receiver(&self) -> Option<Ident> {
        let renamed = self
            .bindings()
            .find_map(|binding| match (&binding.pat, value(binding)) {
                (Pat::Ident(name), Some(Expr::Path(own))) if own.path.is_ident("self") => {
                    Some(name.ident.clone())
                }
                _ => None,
            });
        let receiver = self.signature.receiver()?;
        Some(renamed.unwrap_or_else(|| Ident::from(receiver.self_token)))
    }

    fn bindings(&self) -> impl Iterator<Item = &Local> {
        let bindings = match &self.form {
            Form::Boxed(boxed) => boxed.bindings.as_slice(),
            _ => &[],
        };
        bindings.iter().filter_map(|statement| match statement {
            Stmt::Local(binding) => Some(binding),
            _ => None,
        })
    }
}

/// Returns whether `#[async_trait]` made this name.
pub(crate) fn is_async_traits(name: &Ident) -> bool {
    let name = name.to_string();
    name == "__self"
        || name
            .strip_prefix("__arg")
            .is_some_and(|rest| rest.parse::<usize>().is_ok())
}

fn value(binding: &Local) -> Option<&Expr> {
    binding.init.as_ref().map(|init| &*init.expr)
}

/// Collects the names that a pattern binds.
pub(crate) fn bound_names(pattern: &Pat, names: &mut Vec<Ident>) {
    visit_names(pattern, &mut |name| {
        names.push(name.clone());
        Inside::Visit
    });
}

/// Whether the names after an `@` are also visited.
pub(crate) enum Inside {
    Visit,
    Skip,
}

/// Visits the names that a pattern binds, in source order.
pub(crate) fn visit_names(pattern: &Pat, visit: &mut impl FnMut(&Ident) -> Inside) {
    match pattern {
        Pat::Ident(name) => {
            if let (Inside::Visit, Some((_, inside))) = (visit(&name.ident), &name.subpat) {
                visit_names(inside, visit);
            }
        }
        Pat::Paren(inner) => visit_names(&inner.pat, visit),
        Pat::Reference(inner) => visit_names(&inner.pat, visit),
        Pat::Type(inner) => visit_names(&inner.pat, visit),
        Pat::Slice(slice) => (slice.elems.iter()).for_each(|inner| visit_names(inner, visit)),
        Pat::Struct(fields) => {
            (fields.fields.iter()).for_each(|field| visit_names(&field.pat, visit));
        }
        Pat::Tuple(tuple) => (tuple.elems.iter()).for_each(|inner| visit_names(inner, visit)),
        Pat::TupleStruct(tuple) => {
            (tuple.elems.iter()).for_each(|inner| visit_names(inner, visit));
        }
        // Every branch binds the same names.
        Pat::Or(branches) => {
            (branches.cases.iter().take(1)).for_each(|inner| visit_names(inner, visit));
        }
        _ => {}
    }
}

/// Recognises `fn(…) -> Pin<Box<dyn Future<Output = R> + …>> { Box::pin(async move { … }) }`.
fn boxed(signature: &Signature, body: TokenStream) -> Option<Boxed> {
    let ReturnType::Type(_, future) = &signature.output else {
        return None;
    };
    let Type::TraitObject(future) = argument(argument(future, "Pin")?, "Box")? else {
        return None;
    };
    let output = future.bounds.iter().find_map(|bound| match bound {
        TypeParamBound::Trait(bound) => future_output(bound.path.segments.last()?),
        _ => None,
    })?;
    let mut pin: Vec<TokenTree> = body.into_iter().collect();
    let block = match pin.pop() {
        Some(TokenTree::Group(arguments)) if arguments.delimiter() == Delimiter::Parenthesis => {
            async_block(&arguments)?
        }
        _ => return None,
    };
    let path: String = pin.iter().map(ToString::to_string).collect();
    if path != "Box::pin" && !path.ends_with("::Box::pin") {
        return None;
    }
    let mut statements = Block::parse_within.parse2(block).ok()?;
    // The first statement is a `return` that is never reached, as in the code that this crate generates.
    let first = usize::from(matches!(
        statements.first(),
        Some(Stmt::Expr(Expr::If(_), _))
    ));
    let bindings = statements
        .iter()
        .skip(first)
        .take_while(|statement| is_binding_again(statement))
        .count();
    let body = statements.split_off(if bindings == 0 { 0 } else { first + bindings });
    Some(Boxed {
        pin: pin.into_iter().collect(),
        bindings: statements,
        body: body.iter().map(ToTokens::to_token_stream).collect(),
        output: Box::new(output.clone()),
    })
}

/// `let x = x;`, `let __self = self;` or `let (a, b) = { let __arg1 = __arg1; __arg1 };`
fn is_binding_again(statement: &Stmt) -> bool {
    let Stmt::Local(binding) = statement else {
        return false;
    };
    match (&binding.pat, value(binding)) {
        (Pat::Ident(name), Some(Expr::Path(own))) => {
            own.path.is_ident(&name.ident)
                || (own.path.is_ident("self") && is_async_traits(&name.ident))
        }
        (_, Some(Expr::Block(block))) => match block.block.stmts.as_slice() {
            [again, Stmt::Expr(Expr::Path(argument), None)] => {
                is_binding_again(again) && argument.path.get_ident().is_some_and(is_async_traits)
            }
            _ => false,
        },
        _ => false,
    }
}

/// Returns the `T` of `Wrapper<T>`.
fn argument<'a>(ty: &'a Type, wrapper: &str) -> Option<&'a Type> {
    let Type::Path(path) = ty else { return None };
    let segment = path
        .path
        .segments
        .last()
        .filter(|segment| segment.ident == wrapper)?;
    let PathArguments::AngleBracketed(arguments) = &segment.arguments else {
        return None;
    };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    })
}

/// Returns the `R` of `Future<Output = R>`.
fn future_output(segment: &syn::PathSegment) -> Option<&Type> {
    let PathArguments::AngleBracketed(arguments) = &segment.arguments else {
        return None;
    };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::AssocType(output)
            if segment.ident == "Future" && output.ident == "Output" =>
        {
            Some(&output.ty)
        }
        _ => None,
    })
}

/// Returns the tokens between the braces of `(async move { … })`.
fn async_block(arguments: &Group) -> Option<TokenStream> {
    let tokens: Vec<TokenTree> = arguments.stream().into_iter().collect();
    match tokens.as_slice() {
        [
            TokenTree::Ident(first),
            TokenTree::Ident(second),
            TokenTree::Group(block),
        ] if first == "async" && second == "move" && block.delimiter() == Delimiter::Brace => {
            Some(block.stream())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(text: &str) -> Function {
        syn::parse_str(text).expect(text)
    }

    #[test]
    fn names_bound_inside_patterns_are_in_scope() {
        let function = function(
            "async fn f(&self, Path(id): Path<i64>, (a, [b, ..]): T, S { c, d: e }: S, x @ _: u8) {}",
        );

        let names: Vec<String> = function
            .parameters()
            .iter()
            .map(ToString::to_string)
            .collect();

        assert_eq!(names, ["id", "a", "b", "c", "e", "x"]);
        assert!(function.receiver().is_some());
    }

    #[test]
    fn a_method_expanded_by_async_trait_is_recognised() {
        let function = function(
            "fn f<'a>(&'a self) -> ::core::pin::Pin<Box<dyn ::core::future::Future<Output = u8> + Send + 'a>> \
             { Box::pin(async move { 1 }) }",
        );

        assert!(matches!(function.form, Form::Boxed(_)));
        assert!(matches!(function.output(), Some(Type::Path(path)) if path.path.is_ident("u8")));
    }

    #[test]
    fn names_rebound_by_async_trait_are_in_scope() {
        let function = function(
            "fn f<'a>(self: Arc<Self>, id: i64, __arg2: (u8, u8)) -> Pin<Box<dyn Future<Output = u8> + Send + 'a>> {
                Box::pin(async move {
                    if let Some(__ret) = None::<u8> { return __ret; }
                    let __self = self;
                    let id = id;
                    let (a, b) = { let __arg2 = __arg2; __arg2 };
                    let __ret: u8 = { let c = id; c };
                    __ret
                })
            }",
        );

        let names: Vec<String> = function
            .parameters()
            .iter()
            .map(ToString::to_string)
            .collect();

        assert_eq!(names, ["id", "a", "b"]);
        assert_eq!(function.receiver().expect("a receiver"), "__self");
        let Form::Boxed(boxed) = function.form else {
            panic!("expected a boxed future")
        };
        assert_eq!(boxed.bindings.len(), 4);
        assert!(boxed.body.to_string().starts_with("let __ret"));
    }

    #[test]
    fn any_other_function_is_blocking() {
        for text in [
            "fn f() -> u8 { 1 }",
            "fn f() -> Pin<Box<dyn Future<Output = u8>>> { Box::pin(other()) }",
            "fn f() -> Pin<Box<dyn Future<Output = u8>>> { let x = 1; Box::pin(async move { x }) }",
            "fn f() -> Pin<Box<dyn Stream<Item = u8>>> { Box::pin(async move { 1 }) }",
        ] {
            assert!(matches!(function(text).form, Form::Blocking), "{text}");
        }
    }

    #[test]
    fn an_invalid_body_is_accepted() {
        let Form::Async { body } = function("async fn f() -> u8 { let x = ; } ").form else {
            panic!("expected an async function")
        };

        assert_eq!(body.to_string(), "let x = ;");
    }
}
