//! `#[transactional]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Result, Type};

use crate::function::{Function, refuse};
use crate::options::{BEGIN_MODE, ISOLATION, Kind, Known, Options, PROPAGATION};

/// Those of the transaction first: the others make `UnitOptions` of them.
const OPTIONS: &[Known] = &[
    ("read_only", Kind::Flag),
    ("isolation", ISOLATION),
    ("deferrable", Kind::Flag),
    ("begin_mode", BEGIN_MODE),
    ("timeout", Kind::Duration),
    ("statement_timeout", Kind::Duration),
    ("lock_timeout", Kind::Duration),
    ("propagation", PROPAGATION),
    ("durable", Kind::Flag),
    ("retry", Kind::Retry),
];

pub(crate) fn expand(options: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let mut function: Function = syn::parse2(item)?;
    let options = Options::parse(OPTIONS, options)?;
    let is_retried = options.has("retry");
    let output = check(&function, is_retried)?;
    let on = match &options.connection {
        Some(connection) => quote!(on::<#connection>()),
        None => quote!(innermost()),
    };
    let how = if options.is_empty() {
        TokenStream::new()
    } else if options.is_only("read_only") {
        quote!(.read())
    } else {
        let calls = options.calls(OPTIONS);
        quote!(.with(::diesel_session::TransactionOptions::new() #calls))
    };
    let run = if is_retried {
        function.clone_arguments();
        quote!(run_again)
    } else {
        quote!(run)
    };
    let Function { attrs, vis, sig, body } = function;
    Ok(quote! {
        #(#attrs)*
        #vis #sig {
            ::diesel_session::__private::Transactional::#on #how .#run::<#output>(move || -> #output #body)
        }
    })
}

/// What it returns, if it can be run as a unit of work.
fn check(function: &Function, is_retried: bool) -> Result<Type> {
    let sig = &function.sig;
    if let Some(token) = &sig.asyncness {
        return refuse(
            token,
            "a session stays on its thread, and an `async fn` may not: make it a plain `fn`, or use `#[on_database_thread]`",
        );
    }
    if let Some(token) = &sig.constness {
        return refuse(token, "a unit of work runs statements, which a `const fn` can't: make it a plain `fn`");
    }
    if is_retried
        && let Some(receiver) = function.receiver().filter(|receiver| !matches!(*receiver.ty, Type::Reference(_)))
    {
        return refuse(
            receiver.self_token,
            "with `retry` it may run more than once, and the first time would use `self` up: take `&self` or `&mut self`",
        );
    }
    let Some(output) = function.output() else {
        return refuse(
            &sig.ident,
            format!(
                "`{}` has to say whether to commit: let it return a `Result`, such as `-> diesel_session::Result<()>`",
                sig.ident
            ),
        );
    };
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::function::text;

    fn check(options: TokenStream, expected: &TokenStream) {
        let function = quote!(
            fn f(a: u8) -> Result<impl Iterator<Item = u8>> {
                g(a)
            }
        );
        let function_with = |call: &TokenStream| quote!(fn f(a: u8) -> Result<impl Iterator<Item = u8>> { #call });
        assert_eq!(text(&expand(options, function).unwrap()), text(&function_with(expected)));
    }

    #[test]
    fn without_options_it_is_the_plain_unit_of_work() {
        check(
            quote!(),
            &quote!(
                ::diesel_session::__private::Transactional::innermost().run::<Result<_>>(move || -> Result<_> { g(a) })
            ),
        );
        check(
            quote!(SqliteConnection,),
            &quote!(
                ::diesel_session::__private::Transactional::on::<SqliteConnection>()
                    .run::<Result<_>>(move || -> Result<_> { g(a) })
            ),
        );
    }

    #[test]
    fn to_read_only_is_a_unit_of_its_own_kind_where_nothing_else_is_asked_for() {
        check(
            quote!(read_only),
            &quote!(
                ::diesel_session::__private::Transactional::innermost()
                    .read()
                    .run::<Result<_>>(move || -> Result<_> { g(a) })
            ),
        );
        check(
            quote!(durable, read_only),
            &quote! {
                ::diesel_session::__private::Transactional::innermost()
                    .with(::diesel_session::TransactionOptions::new().read_only().durable())
                    .run::<Result<_>>(move || -> Result<_> { g(a) })
            },
        );
    }

    #[test]
    fn what_the_unit_is_asked_for_comes_after_what_its_transaction_is_asked_for() {
        check(
            quote!(retry = policy(), propagation = RequiresNew, timeout = five(), isolation = Serializable),
            &quote! {
                ::diesel_session::__private::Transactional::innermost()
                    .with(
                        ::diesel_session::TransactionOptions::new()
                            .isolation(::diesel_session::IsolationLevel::Serializable)
                            .timeout(five())
                            .propagation(::diesel_session::Propagation::RequiresNew)
                            .retry(policy())
                    )
                    .run_again::<Result<_>>(move || -> Result<_> {
                        let a = ::diesel_session::__private::cloned_for_each_attempt(&a);
                        { g(a) }
                    })
            },
        );
    }
}
