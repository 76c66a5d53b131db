//! `#[on_database_thread]`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{
    Error, FnArg, GenericParam, Lifetime, ParenthesizedGenericArguments, Result, ReturnType, TraitBound, Type,
    TypeBareFn, TypeImplTrait, TypeReference, parse_quote,
};

use crate::function::{Function, quiet, refuse};
use crate::options::{Kind, Known, Options};

const OPTIONS: &[Known] = &[("read_only", Kind::Flag), ("timeout", Kind::Duration), ("retry", Kind::Retry)];

pub(crate) fn expand(options: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let mut function: Function = syn::parse2(item)?;
    let options = Options::parse(OPTIONS, options)?;
    let output = check(&function)?;
    let connection = options.connection.iter().map(|connection| quote!(.connection::<#connection>()));
    let calls = options.calls(OPTIONS);
    let run = if options.has("retry") {
        function.clone_arguments();
        quote!(on_database_thread_again)
    } else {
        quote!(on_database_thread)
    };
    let Function { attrs, vis, mut sig, body } = function;
    // At the type's place, for the compiler's words where it is no `Result`.
    let handle = quote_spanned!(quiet(output.span())=> <#output as ::diesel_session::__private::JobResult>::Handle);
    sig.output = parse_quote!(-> #handle);
    Ok(quote! {
        #(#attrs)*
        #vis #sig {
            ::diesel_session::__private::#run(
                ::diesel_session::__private::ThreadOptions::new() #(#connection)* #calls,
                move || -> #output #body
            )
        }
    })
}

/// What it returns, if it can be a job: everything goes to another thread, and may outlive the caller.
fn check(function: &Function) -> Result<Type> {
    let sig = &function.sig;
    if let Some(token) = &sig.asyncness {
        return refuse(
            token,
            "the body runs on a database thread, where nothing is awaited: make it a plain `fn`, whose caller awaits the `JobHandle`",
        );
    }
    if let Some(token) = &sig.constness {
        return refuse(token, "a job runs statements, which a `const fn` can't: make it a plain `fn`");
    }
    if let Some(receiver) = function.receiver() {
        return refuse(
            receiver.self_token,
            "a job may outlive its caller, and so has no `self`: pass what it needs of it by value, or an `Arc`",
        );
    }
    let lifetime = sig.generics.params.iter().find_map(|param| match param {
        GenericParam::Lifetime(param) => Some(&param.lifetime),
        _ => None,
    });
    if let Some(lifetime) = lifetime {
        return refuse(lifetime, BORROWS);
    }
    for argument in &sig.inputs {
        if let FnArg::Typed(argument) = argument {
            Borrows::refuse_in(&argument.ty, false)?;
        }
    }
    let ReturnType::Type(_, output) = &sig.output else {
        return refuse(
            &sig.ident,
            format!(
                "`{}` has to say whether to commit: let it return a `Result`, such as `-> diesel_session::Result<()>`",
                sig.ident
            ),
        );
    };
    Borrows::refuse_in(output, true)?;
    Ok(Type::clone(output))
}

const BORROWS: &str = "a job may outlive its caller, so it can't borrow: pass owned values";

/// Looks for what a type borrows.
struct Borrows {
    is_output: bool,
    found: Option<Error>,
}

impl Borrows {
    fn refuse_in(ty: &Type, is_output: bool) -> Result<()> {
        let mut search = Self { is_output, found: None };
        search.visit_type(ty);
        search.found.map_or(Ok(()), Err)
    }

    fn find(&mut self, error: Error) {
        self.found.get_or_insert(error);
    }
}

impl<'ast> Visit<'ast> for Borrows {
    fn visit_type_reference(&mut self, reference: &'ast TypeReference) {
        if reference.lifetime.as_ref().is_some_and(|lifetime| lifetime.ident == "static") {
            return visit::visit_type_reference(self, reference);
        }
        let owned = match &*reference.elem {
            Type::Path(path) if path.path.is_ident("str") => "a `String`",
            Type::Slice(_) => "a `Vec`",
            _ => "the value itself, or an `Arc` of it",
        };
        let verb = if self.is_output { "return" } else { "pass" };
        let message = format!("a job may outlive its caller, so it can't borrow: {verb} {owned}");
        self.find(Error::new(reference.and_token.span, message));
    }

    fn visit_lifetime(&mut self, lifetime: &'ast Lifetime) {
        if lifetime.ident != "static" {
            self.find(Error::new(lifetime.span(), BORROWS));
        }
    }

    fn visit_type_impl_trait(&mut self, hidden: &'ast TypeImplTrait) {
        if self.is_output {
            self.find(Error::new(hidden.impl_token.span, "the handle names the type of the answer: name it here"));
        } else {
            visit::visit_type_impl_trait(self, hidden);
        }
    }

    // What a function is called with is not kept.
    fn visit_type_bare_fn(&mut self, _: &'ast TypeBareFn) {}
    fn visit_parenthesized_generic_arguments(&mut self, _: &'ast ParenthesizedGenericArguments) {}
    fn visit_trait_bound(&mut self, bound: &'ast TraitBound) {
        if bound.lifetimes.is_none() {
            visit::visit_trait_bound(self, bound);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::function::text;

    fn check(options: TokenStream, function: TokenStream, expected: &TokenStream) {
        assert_eq!(text(&expand(options, function).unwrap()), text(expected));
    }

    #[test]
    fn the_body_becomes_a_job_and_the_answer_its_handle() {
        check(
            quote!(),
            quote! {
                /// Documented.
                #[inline]
                pub(crate) fn create<T: Into<String> + Send + 'static>(Json(name): Json<T>, by: impl Fn(&str) -> bool) -> Result<User, Failure>
                where
                    T: Clone,
                {
                    #![allow(clippy::all)]
                    Session::current()?.add(name.into())
                }
            },
            &quote! {
                /// Documented.
                #[inline]
                #[allow(clippy::all)]
                pub(crate) fn create<T: Into<String> + Send + 'static>(Json(name): Json<T>, by: impl Fn(&str) -> bool)
                    -> <Result<User, Failure> as ::diesel_session::__private::JobResult>::Handle
                where
                    T: Clone,
                {
                    ::diesel_session::__private::on_database_thread(
                        ::diesel_session::__private::ThreadOptions::new(),
                        move || -> Result<User, Failure> { Session::current()?.add(name.into()) }
                    )
                }
            },
        );
    }

    #[test]
    fn options_become_calls() {
        check(
            quote!(timeout = Duration::from_secs(wait), read_only, db::Connection),
            quote!(
                fn names(wait: u64, kind: &'static str) -> Result<Vec<String>> {
                    load()
                }
            ),
            &quote! {
                fn names(wait: u64, kind: &'static str) -> <Result<Vec<String>> as ::diesel_session::__private::JobResult>::Handle {
                    ::diesel_session::__private::on_database_thread(
                        ::diesel_session::__private::ThreadOptions::new()
                            .connection::<db::Connection>()
                            .read_only()
                            .timeout(Duration::from_secs(wait)),
                        move || -> Result<Vec<String>> { load() }
                    )
                }
            },
        );
    }

    #[test]
    fn with_retry_each_run_gets_clones_of_what_the_body_mentions() {
        check(
            quote!(retry = 3),
            quote!(
                fn add(mut name: String, unused: u8, (a, _): (u8, u8)) -> Result<()> {
                    name.push('x');
                    insert(name, [a])
                }
            ),
            &quote! {
                fn add(name: String, unused: u8, (a, _): (u8, u8)) -> <Result<()> as ::diesel_session::__private::JobResult>::Handle {
                    ::diesel_session::__private::on_database_thread_again(
                        ::diesel_session::__private::ThreadOptions::new().retry(::diesel_session::RetryPolicy::new(3)),
                        move || -> Result<()> {
                            let mut name = ::diesel_session::__private::cloned_for_each_attempt(&name);
                            let a = ::diesel_session::__private::cloned_for_each_attempt(&a);
                            { name.push('x'); insert(name, [a]) }
                        }
                    )
                }
            },
        );
    }

    #[test]
    fn what_borrows_is_refused_and_what_does_not_is_taken() {
        let refused = |function: TokenStream| expand(quote!(), function).unwrap_err().to_string();
        for function in [
            quote!(
                fn f(a: &'static [&u8]) -> Result<()> {}
            ),
            quote!(
                fn f(a: Vec<Cow<'_, str>>) -> Result<()> {}
            ),
            quote!(
                fn f(a: Box<dyn Fn() + '_>) -> Result<()> {}
            ),
            quote!(
                fn f<'a>() -> Result<()> {}
            ),
        ] {
            let error = refused(function.clone());
            assert!(error.starts_with("a job may outlive its caller"), "{function}: {error}");
        }
        for function in [
            quote!(
                fn f(a: &'static str, b: Cow<'static, str>) -> Result<&'static str> {}
            ),
            quote!(
                fn f(a: fn(&str) -> &str, b: Box<dyn Fn(&str) + Send>) -> Result<()> {}
            ),
            quote!(
                fn f(a: impl for<'a> Visit<'a> + Send + 'static) -> Result<()> {}
            ),
        ] {
            assert!(expand(quote!(), function.clone()).is_ok(), "{function}");
        }
    }
}
