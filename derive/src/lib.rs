//! The derives of [diesel-session](https://docs.rs/diesel-session), which re-exports them: depend on that crate.

mod attrs;
mod backends;
mod columns;
mod embedded;
mod entity;
mod model;
mod record;
mod relations;

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
