//! The derives and attributes of [diesel-session](https://docs.rs/diesel-session), which re-exports them: depend on that crate.
//!
//! What they write names that crate `diesel_session`. Who depends on it by another name, as in
//! `ds = { package = "diesel-session", … }`, says `extern crate ds as diesel_session;` in the root of his crate.

mod attrs;
mod backends;
mod columns;
mod database_thread;
mod embedded;
mod entity;
mod function;
mod model;
mod options;
mod record;
mod relations;
mod transactional;

use proc_macro::TokenStream;
use quote::quote;
use syn::{DeriveInput, Result, parse_macro_input};

/// An entity: a Diesel model that a session tracks.
///
/// It stands beside `Clone`, `Queryable`, `Selectable` and `Identifiable`, with `PartialEq` on the type of each field, and
/// implements `Entity`, and `Persist` for the connection of each database whose feature is on. The columns are the fields
/// in their order.
///
/// | on the struct | meaning |
/// |---|---|
/// | `#[diesel(table_name = users)]` | the table; as with Diesel the name in snake case and an `s` where it is missing |
/// | `#[diesel(primary_key(a, b))]` | the key's columns; `id` where it is missing |
/// | `#[diesel(belongs_to(User, foreign_key = user_id))]` | rows of `User` are inserted before and deleted after, and loaded together by `BelongsTo`; `User` must be an entity, unless `no_relations` says so |
/// | `#[diesel(check_for_backend(diesel::pg::Pg))]` | only for these databases, as `backends` |
/// | `#[entity(depends_on(Tag, other::Type))]` | the tables of these `Identifiable` types come before, too |
/// | `#[entity(backends(sqlite, postgres, mysql))]` | only for these databases: for a model with a type that the others don't have |
/// | `#[entity(table = "audit.users")]` | the table's name in SQL, needed where `table!` gives it a schema |
/// | `#[entity(hooks)]` | flushes call `EntityHooks`, which is implemented by hand for each connection |
/// | `#[entity(no_relations)]` | `belongs_to` orders the statements and nothing more |
///
/// | on a field | meaning |
/// |---|---|
/// | `#[diesel(column_name = …)]` | the column |
/// | `#[diesel(embed)]` | a struct of several columns, `#[derive(Embedded)]` |
/// | `#[diesel(serialize_as = X)]` | bound as `X: From<the field's type>`; not on the key |
/// | `#[entity(version)]` | an integer that each update counts up and compares |
///
/// Each field must be a column: what `select_expression` reads can't be written. Type parameters are fine, lifetimes are not:
/// a tracked row outlives the call that loaded it.
#[proc_macro_derive(Entity, attributes(diesel, entity))]
pub fn derive_entity(input: TokenStream) -> TokenStream {
    expand(parse_macro_input!(input as DeriveInput), entity::derive)
}

/// What is inserted to make an entity.
///
/// On a Diesel `Insertable`, with `of`; or on the entity itself, beside `Entity`, without. It implements `Record`, and
/// `Insert` for the connection of each database whose feature is on.
///
/// | on the struct | meaning |
/// |---|---|
/// | `#[entity(of = User)]` | the entity; its fields have the names and types of the record's |
/// | `#[entity(generated(id, version))]` | the entity's fields whose values the database makes; `kind = type_column` where the column is called otherwise. Without it the whole row is read back |
/// | `#[entity(backends(…))]`, `#[diesel(check_for_backend(…))]` | only for these databases |
/// | `#[entity(hooks)]` | flushes call `RecordHooks`, which is implemented by hand for each connection |
/// | `#[diesel(table_name = users)]` | as on the entity |
///
/// | on a field | meaning |
/// |---|---|
/// | `#[diesel(column_name = …)]`, `#[diesel(embed)]`, `#[diesel(serialize_as = X)]` | as on the entity |
/// | `#[diesel(skip_insertion)]` | not a column; `Default` makes it again when the insert is rolled back |
///
/// A field that `generated` lists too is an `Option`: `Some` is inserted, `None` leaves the column to the database and is read
/// back. After a rollback the record comes back with `Some`. **Every other field is inserted as it is, and `None` is NULL**:
/// unlike Diesel's own `Insertable`, where `None` means the column's default unless `treat_none_as_default_value = false`.
///
/// Without `of` the entity is its own record. All its columns are inserted, or, with `generated`, the others; the database's
/// values are then put into it. With `hooks`, an entity that is its own record has `EntityHooks` and `RecordHooks`; the one
/// that does nothing is an empty impl.
#[proc_macro_derive(Record, attributes(diesel, entity))]
pub fn derive_record(input: TokenStream) -> TokenStream {
    expand(parse_macro_input!(input as DeriveInput), record::derive)
}

/// A struct of several columns inside entities and records: `#[diesel(embed)]`.
///
/// It stands beside `Clone`, `Queryable`, `Selectable` and `Insertable`, with `PartialEq` on the type of each field, and reads
/// `table_name`, `column_name`, `embed` and `serialize_as` as `Entity` does.
#[proc_macro_derive(Embedded, attributes(diesel, entity))]
pub fn derive_embedded(input: TokenStream) -> TokenStream {
    expand(parse_macro_input!(input as DeriveInput), embedded::derive)
}

/// A function that is a unit of work (Spring's annotation): commits when it returns `Ok`, rolls back on `Err` or panic.
///
/// The body is the closure of `ScopedSession::transaction`; inside, `Session::current()` gives its session. Called inside
/// another unit of work it joins that one, which commits. An `Err` of the body comes back as it is; what the commit answers
/// goes through `From<diesel_session::Error>` of the function's own error.
///
/// It names no connection type. It runs on the innermost registry that is entered on this thread, whatever its type; where
/// none is entered, on the installed one. With registries of several types installed that is
/// `Error::AmbiguousRegistry`, and without any `Error::NoRegistry`. `#[transactional(SqliteConnection)]` names the type, and
/// means the registry that `Session::<SqliteConnection>::current()` means.
///
/// | option | meaning |
/// |---|---|
/// | a type | the connection |
/// | `read_only` | alone: `ScopedSession::read`, which inside an open transaction reads there, whoever owns it, and whose failure leaves that one as it is; with others: `TransactionOptions::read_only` |
/// | `isolation = Serializable` | `TransactionOptions::isolation` |
/// | `deferrable` | `TransactionOptions::deferrable` |
/// | `begin_mode = Deferred` | `TransactionOptions::begin_mode` |
/// | `timeout = Duration::from_secs(5)`, `statement_timeout = …`, `lock_timeout = …` | the time-outs of `TransactionOptions` |
/// | `propagation = RequiresNew` | `UnitOptions::propagation` |
/// | `durable` | `UnitOptions::durable` |
/// | `retry = 3`, `retry = RetryPolicy::new(3)` | `UnitOptions::retry`: at most so many attempts |
///
/// Any option but `read_only` alone makes it `ScopedSession::transaction_with`. Values may be any expression, evaluated at
/// each call, and may use the arguments.
///
/// With `retry` each attempt gets clones of the arguments that the body mentions, so they must be `Clone`. What is behind an
/// `&mut` argument or `&mut self` is not cloned: a further attempt finds it as the one before left it.
///
/// In messages and reports the unit's place is the attribute's line, or with `#[track_caller]` on the function the line that
/// calls it. The body becomes a closure: `std::panic::Location::caller()` in it is the body's own line, also with
/// `#[track_caller]`.
#[proc_macro_attribute]
pub fn transactional(options: TokenStream, function: TokenStream) -> TokenStream {
    rewrite(options, function, transactional::expand)
}

/// A function whose body runs as a job of the installed executor: calling it starts the job and gives its `JobHandle`, a
/// future, at once (as Twisted's `deferToThread`).
///
/// The function is written as if it were called on the database's thread: it returns a `Result<T, E>`, and its callers get a
/// `JobHandle<T, E>`. Arguments and answer go to another thread and may outlive the caller: they are `Send` and borrow
/// nothing but what is `'static`, and there is no `self`.
///
/// | option | meaning |
/// |---|---|
/// | a type | the connection, where executors for several are installed |
/// | `read_only` | the job only reads |
/// | `timeout = Duration::from_secs(5)` | how long the job may take |
/// | `retry = 3`, `retry = RetryPolicy::new(3)` | run again where the error allows it, with clones of the arguments that the body mentions |
#[proc_macro_attribute]
pub fn on_database_thread(options: TokenStream, function: TokenStream) -> TokenStream {
    rewrite(options, function, database_thread::expand)
}

type Tokens = proc_macro2::TokenStream;

fn rewrite(options: TokenStream, item: TokenStream, expand: fn(Tokens, Tokens) -> Result<Tokens>) -> TokenStream {
    match expand(options.into(), item.clone().into()) {
        Ok(tokens) => tokens.into(),
        Err(error) => {
            let mut tokens = TokenStream::from(error.into_compile_error());
            // As it was written it stays, so that nobody complains that it is missing; nobody knows an expression by a name.
            if !function::is_closure(&item.clone().into()) {
                tokens.extend(item);
            }
            tokens
        }
    }
}

fn expand(input: DeriveInput, derive: fn(DeriveInput) -> Result<proc_macro2::TokenStream>) -> TokenStream {
    match derive(input) {
        // The impls name the user's own types only: what is private there may stay so.
        Ok(items) => quote! {
            #[doc(hidden)]
            #[allow(
                clippy::all, clippy::pedantic, missing_docs, missing_debug_implementations, unreachable_pub,
                private_bounds, private_interfaces, non_local_definitions, unused_qualifications, deprecated
            )]
            const _: () = {
                #items
            };
        }
        .into(),
        Err(error) => error.into_compile_error().into(),
    }
}
