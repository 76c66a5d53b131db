//! The function that an attribute stands on.

use proc_macro2::{Delimiter, Group, Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::visit_mut::{self, VisitMut};
use syn::{
    AttrStyle, Attribute, Error, FnArg, LitStr, PatIdent, Receiver, Result, ReturnType, Signature, Token, Type,
    TypeInfer, Visibility, braced,
};

/// A function or method with a body, which stays as it was written: it is not looked into.
pub(crate) struct Function {
    pub(crate) attrs: Vec<Attribute>,
    pub(crate) vis: Visibility,
    pub(crate) sig: Signature,
    pub(crate) body: Group,
}

impl Parse for Function {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut attrs = input.call(Attribute::parse_outer)?;
        let vis = input.parse()?;
        if !is_function(&input.fork()) {
            return Err(input.error(if is_closure(&input.fork().parse()?) {
                "this attribute goes on functions and methods: for a closure there is `registry.transaction(|session| …)`"
            } else {
                "this attribute goes on functions and methods"
            }));
        }
        let sig = input.parse()?;
        if input.peek(Token![;]) {
            return Err(input.error("there is no body to run: put the attribute on the method in the `impl`"));
        }
        let content;
        let braces = braced!(content in input);
        // Inner attributes have no place in a closure's body.
        let inner = content.call(Attribute::parse_inner)?;
        attrs.extend(inner.into_iter().map(|attr| Attribute { style: AttrStyle::Outer, ..attr }));
        let mut body = Group::new(Delimiter::Brace, content.parse()?);
        body.set_span(braces.span.join());
        Ok(Self { attrs, vis, sig, body })
    }
}

fn is_function(input: ParseStream<'_>) -> bool {
    while !input.peek(Token![fn]) {
        let is_qualifier =
            input.peek(Token![const]) || input.peek(Token![async]) || input.peek(Token![unsafe]) || input.peek(LitStr);
        if !(is_qualifier || input.peek(Token![extern])) || input.parse::<TokenTree>().is_err() {
            return false;
        }
    }
    true
}

/// Whether a closure begins here.
pub(crate) fn is_closure(tokens: &TokenStream) -> bool {
    match tokens.clone().into_iter().next() {
        Some(TokenTree::Punct(punct)) => punct.as_char() == '|',
        Some(TokenTree::Ident(word)) => word == "move",
        _ => false,
    }
}

impl Function {
    /// What it returns, for a place where `impl Trait` can't stand.
    pub(crate) fn output(&self) -> Option<Type> {
        let ReturnType::Type(_, output) = &self.sig.output else { return None };
        let mut output = Type::clone(output);
        NameNothing.visit_type_mut(&mut output);
        Some(output)
    }

    pub(crate) fn receiver(&self) -> Option<&Receiver> {
        self.sig.inputs.iter().find_map(|argument| match argument {
            FnArg::Receiver(receiver) => Some(receiver),
            FnArg::Typed(_) => None,
        })
    }

    /// Turns the body into one that can be run again, because it gets clones of the arguments that it mentions. What is
    /// behind `&mut` is the caller's, and the same each time.
    pub(crate) fn clone_arguments(&mut self) {
        let mut bindings = Bindings { body: self.body.stream(), cfg: Vec::new(), clones: Vec::new() };
        for argument in &mut self.sig.inputs {
            let FnArg::Typed(argument) = argument else { continue };
            if matches!(&*argument.ty, Type::Reference(reference) if reference.mutability.is_some()) {
                continue;
            }
            bindings.cfg = argument.attrs.iter().filter(|attr| attr.path().is_ident("cfg")).cloned().collect();
            bindings.visit_pat_mut(&mut argument.pat);
        }
        let (clones, body) = (bindings.clones, &self.body);
        if !clones.is_empty() {
            self.body = Group::new(Delimiter::Brace, quote!(#(#clones)* #body));
        }
    }
}

/// The compiler finds out what it is.
struct NameNothing;

impl VisitMut for NameNothing {
    fn visit_type_mut(&mut self, ty: &mut Type) {
        if let Type::ImplTrait(hidden) = ty {
            *ty = Type::Infer(TypeInfer { underscore_token: Token![_](hidden.impl_token.span) });
        } else {
            visit_mut::visit_type_mut(self, ty);
        }
    }
}

/// The names that the arguments bind.
struct Bindings {
    body: TokenStream,
    /// Where the argument that is looked at exists.
    cfg: Vec<Attribute>,
    clones: Vec<TokenStream>,
}

impl VisitMut for Bindings {
    fn visit_pat_ident_mut(&mut self, pat: &mut PatIdent) {
        if mentions(self.body.clone(), &pat.ident) {
            let (name, cfg) = (&pat.ident, &self.cfg);
            // The clone is what the body changes.
            let mutability = if pat.by_ref.is_none() { pat.mutability.take() } else { None };
            // The argument's place, for the compiler's words about `Clone`, and not the user's own code, for lints.
            let cloned = quote_spanned! {quiet(name.span())=>
                ::diesel_session::__private::cloned_for_each_attempt(&#name)
            };
            self.clones.push(quote!(#(#cfg)* let #mutability #name = #cloned;));
        }
        visit_mut::visit_pat_ident_mut(self, pat);
    }
}

fn mentions(tokens: TokenStream, name: &Ident) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => ident.unraw() == name.unraw(),
        TokenTree::Group(group) => mentions(group.stream(), name),
        TokenTree::Punct(_) | TokenTree::Literal(_) => false,
    })
}

/// A place in the user's code, for what the attribute wrote itself.
pub(crate) fn quiet(span: Span) -> Span {
    Span::call_site().located_at(span)
}

/// An error at this token.
pub(crate) fn refuse<T>(token: impl ToTokens, message: impl std::fmt::Display) -> Result<T> {
    Err(Error::new_spanned(token, message))
}

/// Tokens without the spaces between them, to compare.
#[cfg(test)]
pub(crate) fn text(tokens: &TokenStream) -> String {
    tokens.to_string().replace(' ', "")
}
