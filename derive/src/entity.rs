//! `#[derive(Entity)]`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{DeriveInput, Error, Ident, Result, Type};

use crate::backends::{self, Database};
use crate::columns::{Columns, at};
use crate::model::{Field, Model};
use crate::relations;

/// An entity: the model, and what was found in it.
pub(crate) struct Entity<'a> {
    pub(crate) model: &'a Model,
    pub(crate) columns: Columns<'a>,
    key: Vec<&'a Field>,
    version: Option<&'a Field>,
}

pub(crate) fn derive(input: DeriveInput) -> Result<TokenStream> {
    let model = Model::parse(input, "Entity", "an entity")?;
    if let Some((span, _)) = &model.entity.of {
        return Err(Error::new(
            *span,
            "`of` stands on a record, `#[derive(Record)]`: an entity is what it is the record of",
        ));
    }
    let entity = Entity { key: key(&model)?, version: version(&model)?, columns: Columns::all(&model), model: &model };
    if let Some(version) = entity.version
        && entity.key.iter().any(|part| part.name == version.name)
    {
        return Err(Error::new(version.version.unwrap_or(version.span()), "the version can't be part of the key"));
    }
    let relations = relations::of(&entity)?;
    let (columns, names) = (entity.columns.impls(), entity.columns.names_impl());
    let (own, row, bind_key) = (entity.entity_impl(&relations), entity.row_impls(), entity.bind_key_impl());
    let (persist, related) = (entity.persist_impls(), relations.impls());
    Ok(quote!(#columns #names #own #row #bind_key #persist #related))
}

/// The fields of the primary key.
pub(crate) fn key(model: &Model) -> Result<Vec<&Field>> {
    let id = [Ident::new("id", model.name.span())];
    let names = model.diesel.primary_key.as_deref().unwrap_or(&id);
    let find = |name: &Ident| {
        let field = model.fields.iter().find(|field| field.column == *name && !field.embedded()).ok_or_else(|| {
            let help = if model.diesel.primary_key.is_some() {
                ""
            } else {
                ": name the key with `#[diesel(primary_key(…))]`"
            };
            Error::new(name.span(), format!("no field is the key's column `{name}`{help}"))
        })?;
        match &field.diesel.serialize_as {
            Some((span, _)) => {
                let message =
                    "a column of the key is bound as it is: implement `ToSql` for its type instead of `serialize_as`";
                Err(Error::new(*span, message))
            }
            None => Ok(field),
        }
    };
    names.iter().map(find).collect()
}

/// What it takes to be an entity where the struct has type parameters.
pub(crate) fn own_bounds(columns: &Columns<'_>) -> Vec<TokenStream> {
    // A key that is not there is told by `#[derive(Entity)]`.
    bounds(columns, &key(columns.model).unwrap_or_default())
}

fn bounds(columns: &Columns<'_>, key: &[&Field]) -> Vec<TokenStream> {
    let model = columns.model;
    let mut bounds = model.own_bounds();
    if bounds.is_empty() {
        return bounds;
    }
    let this = model.this();
    bounds.push(quote!(#this: ::core::clone::Clone));
    bounds.extend(columns.diff_bounds());
    bounds.extend(key.iter().map(|part| &part.ty).filter(|ty| model.is_generic(ty)).map(
        |ty| quote!(#ty: ::core::clone::Clone + ::core::cmp::Ord + ::core::hash::Hash + ::core::fmt::Debug + 'static),
    ));
    bounds
}

const INTEGERS: [&str; 8] = ["i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64"];

/// The field of the version.
fn version(model: &Model) -> Result<Option<&Field>> {
    let mut found: Option<&Field> = None;
    for field in &model.fields {
        let Some(span) = field.version else { continue };
        if let Some(first) = found {
            return Err(Error::new(span, format!("a second version: `{}` is the version already", first.name)));
        }
        let integer = match &field.ty {
            Type::Path(path) => {
                path.path.segments.last().is_some_and(|last| INTEGERS.iter().any(|name| last.ident == name))
            }
            _ => false,
        };
        if !integer || field.embedded() || field.serialize_as().is_some() {
            return Err(Error::new(
                field.ty.span(),
                format!("a version counts: its field is a plain integer, one of `{}`", INTEGERS.join("`, `")),
            ));
        }
        found = Some(field);
    }
    Ok(found)
}

impl Entity<'_> {
    /// What the impls ask where the struct has type parameters.
    pub(crate) fn bounds(&self) -> Vec<TokenStream> {
        bounds(&self.columns, &self.key)
    }

    fn key_type(&self) -> TokenStream {
        tuple(self.key.iter().map(|part| {
            let ty = &part.ty;
            quote!(#ty)
        }))
    }

    fn entity_impl(&self, relations: &relations::Relations<'_>) -> TokenStream {
        let (this, table) = (self.model.this(), self.model.table());
        let generics = self.model.generics_with(self.bounds());
        let (impl_generics, _, where_clause) = generics.split_for_impl();
        let table_name = self.table_name();
        let key_type = self.key_type();
        let key = tuple(self.key.iter().map(|part| {
            let name = &part.name;
            quote_spanned!(at(part.span())=> ::core::clone::Clone::clone(&self.#name))
        }));
        let has_key = self.key.iter().enumerate().map(|(index, part)| {
            let (name, place) = (&part.name, self.part_of_key(index));
            quote_spanned!(at(part.span())=> ::core::cmp::PartialEq::eq(&self.#name, #place))
        });
        let hash_key = self.key.iter().map(|part| {
            let name = &part.name;
            quote_spanned!(at(part.span())=> ::core::hash::Hash::hash(&self.#name, __hasher);)
        });
        let diff = self.columns.diff();
        let key_columns = self.key.iter().map(|part| self.columns.number_of(part));
        let version = self.version_methods();
        let dependencies = relations.methods();
        quote! {
            const __TABLE: &'static str = #table_name;

            impl #impl_generics ::diesel_session::entity::derived::OwnRecord for #this #where_clause {
                type Itself = Self;
            }

            impl #impl_generics ::diesel_session::Entity for #this #where_clause {
                type Key = #key_type;

                const TABLE: &'static str = __TABLE;

                fn table() -> ::diesel_session::TableId {
                    ::diesel_session::TableId::of::<#table>()
                }

                fn key(&self) -> Self::Key {
                    #key
                }

                fn has_key(&self, __key: &Self::Key) -> bool {
                    #(#has_key)&&*
                }

                fn hash_key(&self, __hasher: &mut impl ::core::hash::Hasher) {
                    #(#hash_key)*
                }

                fn diff(&self, __old: &Self) -> ::diesel_session::ColumnSet {
                    #diff
                }

                fn key_columns() -> ::diesel_session::ColumnSet {
                    ::diesel_session::ColumnSet::NONE #(.with(#key_columns, true))*
                }

                fn column_count() -> usize {
                    <Self as ::diesel_session::entity::sql::Columns>::COUNT
                }

                fn column_name(__column: usize) -> &'static str {
                    <Self as ::diesel_session::entity::sql::Columns>::name(__column)
                }

                #version
                #dependencies
            }
        }
    }

    /// The table's name in SQL: what `table!` says, or what is said here. Evaluated though nobody may use it, so that what
    /// is missing is told here.
    fn table_name(&self) -> TokenStream {
        if let Some(name) = &self.model.entity.table {
            return quote!(#name);
        }
        let table = self.model.table();
        quote_spanned! {at(self.model.table.span())=>
            ::diesel_session::entity::derived::NamedTable(
                <#table as ::diesel::internal::table_macro::StaticQueryFragment>::STATIC_COMPONENT,
            ).name()
        }
    }

    /// A reference to a part of `__key`.
    fn part_of_key(&self, index: usize) -> TokenStream {
        if self.key.len() == 1 {
            return quote!(__key);
        }
        let index = syn::Index::from(index);
        quote!(&__key.#index)
    }

    fn version_methods(&self) -> TokenStream {
        let Some(field) = self.version else { return TokenStream::new() };
        let (name, ty, number) = (&field.name, &field.ty, self.columns.number_of(field));
        quote_spanned! {at(field.span())=>
            fn version(&self) -> ::core::option::Option<i64> {
                ::core::option::Option::Some(
                    <i64 as ::core::convert::TryFrom<#ty>>::try_from(self.#name).unwrap_or(i64::MAX),
                )
            }

            fn set_version(&mut self, __version: i64) {
                // After the last one comes the first: only that it differs matters.
                self.#name = __version as #ty;
            }

            fn version_column() -> ::core::option::Option<usize> {
                ::core::option::Option::Some(#number)
            }
        }
    }

    /// `Row`, `Field` for each column, and `KeyFrom`.
    fn row_impls(&self) -> TokenStream {
        let this = self.model.this();
        let generics = self.model.generics_with(self.bounds());
        let (impl_generics, _, where_clause) = generics.split_for_impl();
        let numbers = self.key.iter().map(|part| self.columns.number_of(part));
        let sql_type = tuple(self.key.iter().map(|part| self.model.sql_type(&part.column)));
        let fields = self.model.fields.iter().filter(|field| !field.embedded()).map(|field| {
            let (column, ty) = (self.model.column(&field.column), &field.ty);
            quote_spanned! {at(field.span())=>
                impl #impl_generics ::diesel_session::entity::sql::Field<#column> for #this #where_clause {
                    type Value = #ty;
                }
            }
        });
        let key_from = self.key_from_impl();
        quote! {
            impl #impl_generics ::diesel_session::entity::sql::Row for #this #where_clause {
                const KEY: &'static [usize] = &[#(#numbers),*];
                type KeySqlType = #sql_type;
            }

            #(#fields)*
            #key_from
        }
    }

    /// The key out of any record that gives all its columns.
    fn key_from_impl(&self) -> TokenStream {
        let this = self.model.this();
        let mut bounds = self.bounds();
        bounds.extend(self.key.iter().map(|part| {
            let (column, ty) = (self.model.column(&part.column), &part.ty);
            quote!(__R: ::diesel_session::entity::derived::Gives<#column, Value = #ty>)
        }));
        let mut generics = self.model.generics_with(bounds);
        generics.params.push(syn::parse_quote!(__R));
        let (impl_generics, _, where_clause) = generics.split_for_impl();
        let key = tuple(self.key.iter().map(|part| {
            let column = self.model.column(&part.column);
            quote!(::core::clone::Clone::clone(
                ::diesel_session::entity::derived::Gives::<#column>::value(__record)?
            ))
        }));
        quote! {
            impl #impl_generics ::diesel_session::entity::derived::KeyFrom<__R> for #this #where_clause {
                fn key_from(__record: &__R) -> ::core::option::Option<Self::Key> {
                    ::core::option::Option::Some(#key)
                }
            }
        }
    }

    fn bind_key_impl(&self) -> TokenStream {
        let this = self.model.this();
        let mut bounds = self.bounds();
        for part in &self.key {
            let (ty, sql_type) = (&part.ty, self.model.sql_type(&part.column));
            let span = at(part.span());
            bounds.push(quote_spanned!(span=> #ty: ::diesel::serialize::ToSql<#sql_type, __DB>));
            bounds.push(quote_spanned!(span=> __DB: ::diesel::sql_types::HasSqlType<#sql_type>));
        }
        let mut generics = self.model.generics_with(bounds);
        generics.params.push(syn::parse_quote!(__DB: ::diesel::backend::Backend));
        let (impl_generics, _, where_clause) = generics.split_for_impl();
        let arms = self.key.iter().enumerate().map(|(index, part)| {
            let (ty, sql_type, place) = (&part.ty, self.model.sql_type(&part.column), self.part_of_key(index));
            quote_spanned!(at(part.span())=> #index => __out.push_bind_param::<#sql_type, #ty>(#place),)
        });
        quote! {
            impl #impl_generics ::diesel_session::entity::sql::BindKey<__DB> for #this #where_clause {
                fn bind_key<'__b>(
                    __key: &'__b Self::Key,
                    __part: usize,
                    mut __out: ::diesel::query_builder::AstPass<'_, '__b, __DB>,
                ) -> ::diesel::result::QueryResult<()> {
                    match __part {
                        #(#arms)*
                        _ => ::diesel_session::entity::derived::no_value(__part),
                    }
                }
            }
        }
    }

    fn persist_impls(&self) -> TokenStream {
        let this = self.model.this();
        let hooks = if self.model.entity.hooks { hooks(&this) } else { TokenStream::new() };
        backends::each(self.model, |database| {
            let connection = &database.connection;
            let generics = self.model.generics_with(self.stored_bounds(database));
            let (impl_generics, _, where_clause) = generics.split_for_impl();
            quote! {
                impl #impl_generics ::diesel_session::Persist<#this> for #connection #where_clause {
                    fn load_by_keys(
                        &mut self,
                        __keys: &[<#this as ::diesel_session::Entity>::Key],
                        __lock: ::core::option::Option<::diesel_session::RowLock>,
                    ) -> ::diesel::result::QueryResult<::std::vec::Vec<#this>> {
                        ::diesel_session::entity::sql::load_by_keys::<Self, #this>(self, __keys, __lock)
                    }

                    fn load_by_key(
                        &mut self,
                        __key: &<#this as ::diesel_session::Entity>::Key,
                    ) -> ::diesel::result::QueryResult<::core::option::Option<#this>> {
                        ::diesel_session::entity::sql::load_by_key::<Self, #this>(self, __key)
                    }

                    fn update(
                        &mut self,
                        __rows: &[::diesel_session::Change<'_, #this>],
                        __columns: ::diesel_session::ColumnSet,
                    ) -> ::diesel::result::QueryResult<usize> {
                        ::diesel_session::entity::sql::update::<Self, #this>(self, __rows, __columns)
                    }

                    fn delete(&mut self, __rows: &[&#this]) -> ::diesel::result::QueryResult<usize> {
                        ::diesel_session::entity::sql::delete::<Self, #this>(self, __rows)
                    }

                    fn delete_by_keys(
                        &mut self,
                        __keys: &[<#this as ::diesel_session::Entity>::Key],
                    ) -> ::diesel::result::QueryResult<usize> {
                        ::diesel_session::entity::sql::delete_by_keys::<Self, #this>(self, __keys)
                    }

                    fn apply(
                        &mut self,
                        __key: &<#this as ::diesel_session::Entity>::Key,
                        __version: ::core::option::Option<i64>,
                        __changes: &dyn ::diesel::query_builder::QueryFragment<
                            <Self as ::diesel::connection::Connection>::Backend,
                        >,
                    ) -> ::diesel::result::QueryResult<usize> {
                        ::diesel_session::entity::sql::apply::<Self, #this>(self, __key, __version, __changes)
                    }

                    fn set_null(
                        &mut self,
                        __key: &<#this as ::diesel_session::Entity>::Key,
                        __columns: ::diesel_session::ColumnSet,
                    ) -> ::diesel::result::QueryResult<usize> {
                        ::diesel_session::entity::sql::set_null::<Self, #this>(self, __key, __columns)
                    }

                    #hooks
                }
            }
        })
    }

    /// What the statements ask where the struct has type parameters.
    pub(crate) fn stored_bounds(&self, database: &Database) -> Vec<TokenStream> {
        let mut bounds = self.bounds();
        if !bounds.is_empty() {
            let (this, backend) = (self.model.this(), &database.backend);
            bounds.extend(self.columns.value_bounds(backend));
            bounds.push(quote! {
                #this: ::diesel::deserialize::FromSqlRow<
                    ::diesel::dsl::SqlTypeOf<<#this as ::diesel::expression::Selectable<#backend>>::SelectExpression>,
                    #backend,
                >
            });
        }
        bounds
    }
}

fn hooks(this: &TokenStream) -> TokenStream {
    let hook = |name: &str, entity: TokenStream| {
        let name = Ident::new(name, proc_macro2::Span::call_site());
        quote! {
            fn #name(&mut self, __entity: #entity) -> ::diesel_session::Result<()> {
                <#this as ::diesel_session::EntityHooks<Self>>::#name(__entity, self)
            }
        }
    };
    let (before_update, after_update) =
        (hook("before_update", quote!(&mut #this)), hook("after_update", quote!(&#this)));
    let (before_delete, after_delete) = (hook("before_delete", quote!(&#this)), hook("after_delete", quote!(&#this)));
    quote! {
        const HAS_HOOKS: bool = true;
        #before_update
        #after_update
        #before_delete
        #after_delete
    }
}

/// One alone, several as a tuple.
fn tuple(parts: impl ExactSizeIterator<Item = TokenStream>) -> TokenStream {
    if parts.len() == 1 { quote!(#(#parts)*) } else { quote!((#(#parts),*)) }
}
