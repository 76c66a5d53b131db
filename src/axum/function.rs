//! Which functions can be routes: those that axum takes, without `async`.

use std::future::Future;

use ::axum::extract::{FromRequest, FromRequestParts, Request};
use ::axum::response::{IntoResponse, Response};

use crate::error::{Error, Result};

/// A synchronous function that can be a route: `fn(T1, …, Tn) -> Result<R, E>`, with up to 16 extractors.
///
/// As with axum's own handlers, the last extractor may take the body ([`FromRequest`]), the others take from the request's
/// head ([`FromRequestParts`]), and what one of them refuses is answered at once. They are sent to a database thread
/// (`Send`); what the function returns is not, because it becomes a response there. `E` is made of the session's errors.
///
/// Implemented for functions and closures; there is nothing to implement by hand. `M` stands for the function's signature,
/// `S` is the router's state.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be a route on a database thread",
    label = "not a function of extractors that returns a `Result<R, E>`",
    note = "the last extractor implements `FromRequest`, the others `FromRequestParts`, all are `Send + 'static`; `R` and `E` implement `IntoResponse`, and `E` also `From<diesel_session::Error>`"
)]
pub trait UnitFunction<M, S>: Clone + Send + Sync + 'static {
    /// What it takes from the request.
    type Arguments: Send + 'static;
    /// What it answers when all is well.
    type Answer: IntoResponse;
    /// What it answers when something is not.
    type Error: IntoResponse + From<Error>;

    /// Takes the arguments from the request, or says what one of them refused it with.
    fn extract(request: Request, state: S) -> impl Future<Output = Result<Self::Arguments, Response>> + Send;

    /// Calls the function.
    ///
    /// # Errors
    /// The function's own.
    fn call(self, arguments: Self::Arguments) -> Result<Self::Answer, Self::Error>;
}

impl<F, S, R, E> UnitFunction<((),), S> for F
where
    F: FnOnce() -> Result<R, E> + Clone + Send + Sync + 'static,
    S: Send + Sync + 'static,
    R: IntoResponse,
    E: IntoResponse + From<Error>,
{
    type Arguments = ();
    type Answer = R;
    type Error = E;

    async fn extract(_: Request, _: S) -> Result<(), Response> {
        Ok(())
    }

    fn call(self, (): ()) -> Result<R, E> {
        self()
    }
}

macro_rules! implement {
    ([$($part:ident)*] $last:ident) => {
        #[diagnostic::do_not_recommend]
        #[allow(non_snake_case, unused_mut, reason = "variables are named after their types; the first has no parts")]
        impl<F, S, R, E, M, $($part,)* $last> UnitFunction<(M, $($part,)* $last,), S> for F
        where
            F: FnOnce($($part,)* $last) -> Result<R, E> + Clone + Send + Sync + 'static,
            S: Send + Sync + 'static,
            R: IntoResponse,
            E: IntoResponse + From<Error>,
            $($part: FromRequestParts<S> + Send + 'static,)*
            $last: FromRequest<S, M> + Send + 'static,
        {
            type Arguments = ($($part,)* $last,);
            type Answer = R;
            type Error = E;

            async fn extract(request: Request, state: S) -> Result<Self::Arguments, Response> {
                let (mut parts, body) = request.into_parts();
                $(
                    let $part = match $part::from_request_parts(&mut parts, &state).await {
                        Ok(value) => value,
                        Err(rejection) => return Err(rejection.into_response()),
                    };
                )*
                let request = Request::from_parts(parts, body);
                match $last::from_request(request, &state).await {
                    Ok($last) => Ok(($($part,)* $last,)),
                    Err(rejection) => Err(rejection.into_response()),
                }
            }

            fn call(self, ($($part,)* $last,): Self::Arguments) -> Result<R, E> {
                self($($part,)* $last)
            }
        }
    };
}

implement!([] T1);
implement!([T1] T2);
implement!([T1 T2] T3);
implement!([T1 T2 T3] T4);
implement!([T1 T2 T3 T4] T5);
implement!([T1 T2 T3 T4 T5] T6);
implement!([T1 T2 T3 T4 T5 T6] T7);
implement!([T1 T2 T3 T4 T5 T6 T7] T8);
implement!([T1 T2 T3 T4 T5 T6 T7 T8] T9);
implement!([T1 T2 T3 T4 T5 T6 T7 T8 T9] T10);
implement!([T1 T2 T3 T4 T5 T6 T7 T8 T9 T10] T11);
implement!([T1 T2 T3 T4 T5 T6 T7 T8 T9 T10 T11] T12);
implement!([T1 T2 T3 T4 T5 T6 T7 T8 T9 T10 T11 T12] T13);
implement!([T1 T2 T3 T4 T5 T6 T7 T8 T9 T10 T11 T12 T13] T14);
implement!([T1 T2 T3 T4 T5 T6 T7 T8 T9 T10 T11 T12 T13 T14] T15);
implement!([T1 T2 T3 T4 T5 T6 T7 T8 T9 T10 T11 T12 T13 T14 T15] T16);
