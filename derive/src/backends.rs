//! One impl a database: only for those whose feature is on, which the crate knows and a macro does not.

use proc_macro2::TokenStream;
use quote::quote;

use crate::attrs::Backend;
use crate::model::Model;

/// A database, as Diesel calls its types.
pub(crate) struct Database {
    pub(crate) connection: TokenStream,
    pub(crate) backend: TokenStream,
}

/// Writes an impl for each of the struct's databases.
pub(crate) fn each(model: &Model, write: impl Fn(&Database) -> TokenStream) -> TokenStream {
    let impls = Backend::ALL.iter().filter(|backend| model.backends().contains(backend)).map(|backend| {
        let (guard, connection, backend) = match backend {
            Backend::Sqlite => (quote!(__if_sqlite), quote!(sqlite::SqliteConnection), quote!(sqlite::Sqlite)),
            Backend::Postgres => (quote!(__if_postgres), quote!(pg::PgConnection), quote!(pg::Pg)),
            Backend::Mysql => (quote!(__if_mysql), quote!(mysql::MysqlConnection), quote!(mysql::Mysql)),
        };
        let written =
            write(&Database { connection: quote!(::diesel::#connection), backend: quote!(::diesel::#backend) });
        quote!(::diesel_session::#guard! { #written })
    });
    quote!(#(#impls)*)
}
