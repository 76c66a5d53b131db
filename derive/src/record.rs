//! `#[derive(Record)]`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{DeriveInput, Error, Ident, Path, PathArguments, Result};

use crate::attrs::Generated;
use crate::backends;
use crate::columns::{Columns, Item, at};
use crate::entity;
use crate::model::{Field, Model, option_of};

pub(crate) fn derive(input: DeriveInput) -> Result<TokenStream> {
    let model = Model::parse(input, "Record", "a record")?;
    let generated = model.entity.generated.as_ref().map_or(&[][..], |(_, columns)| columns.as_slice());
    for (index, column) in generated.iter().enumerate() {
        if generated[..index].iter().any(|earlier| earlier.field == column.field) {
            return Err(Error::new(column.field.span(), format!("`{}` is named twice", column.field)));
        }
    }
    match &model.entity.of {
        Some((_, entity)) => Ok(Record::parse(&model, entity, generated)?.impls()),
        None => own_record(&model, generated),
    }
}

/// A record that is another struct than its entity.
struct Record<'a> {
    model: &'a Model,
    entity: &'a Path,
    generated: &'a [Generated],
    columns: Columns<'a>,
}

impl<'a> Record<'a> {
    fn parse(model: &'a Model, entity: &'a Path, generated: &'a [Generated]) -> Result<Self> {
        if let Some(span) = model.entity.no_relations {
            return Err(Error::new(span, "`no_relations` stands on an entity: a record has none"));
        }
        if let Some(name) = &model.entity.table {
            return Err(Error::new(name.span(), "`table` stands on the entity: its records go there"));
        }
        if let Some((span, _)) = &model.entity.depends_on {
            return Err(Error::new(*span, "`depends_on` stands on the entity: its records follow it"));
        }
        let mut items = Vec::new();
        for field in &model.fields {
            if let Some(span) = field.version {
                return Err(Error::new(span, "`version` stands on the entity's field, not on its record's"));
            }
            if field.diesel.skip_insertion.is_some() {
                continue;
            }
            let listed = generated.iter().any(|column| column.field == field.name);
            if !listed {
                items.push(Item { field, optional: None });
                continue;
            }
            if let Some((span, _)) = &field.diesel.serialize_as {
                return Err(Error::new(*span, "a column that the database may generate can't have `serialize_as`"));
            }
            let optional = option_of(&field.ty).ok_or_else(|| {
                Error::new(
                    field.ty.span(),
                    format!(
                        "`{}` is in `generated(…)`: here it must be an `Option`, where `None` leaves it to the database",
                        field.name
                    ),
                )
            })?;
            items.push(Item { field, optional: Some(optional) });
        }
        if items.len() > 128 {
            return Err(Error::new(model.name.span(), "a record has at most 128 columns, as Diesel's widest tables"));
        }
        Ok(Self { model, entity, generated, columns: Columns { model, items } })
    }

    fn impls(&self) -> TokenStream {
        let (columns, gives) = (self.columns.impls(), self.gives_impls());
        let (record, new_row) = (self.record_impl(), self.new_row_impl());
        let insert = insert_impls(&self.columns, &self.model.own_bounds(), &quote!(insert));
        quote!(#columns #gives #record #new_row #insert)
    }

    /// What the database generates: some columns, or the whole row.
    fn generated_type(&self) -> TokenStream {
        let entity = self.entity;
        if self.generated.is_empty() {
            return quote!(#entity);
        }
        let values = self.generated.iter().map(|generated| {
            let column = self.model.column(column_of(generated));
            quote_spanned! {at(generated.field.span())=>
                <#entity as ::diesel_session::entity::sql::Field<#column>>::Value
            }
        });
        quote!((#(#values,)*))
    }

    fn record_impl(&self) -> TokenStream {
        let (this, entity, generated) = (self.model.this(), self.entity, self.generated_type());
        let generics = self.model.generics_with(self.model.own_bounds());
        let (impl_generics, _, where_clause) = generics.split_for_impl();
        let (finish, unfinish) = (self.finish(), self.unfinish());
        quote! {
            impl #impl_generics ::diesel_session::Record for #this #where_clause {
                type Entity = #entity;

                type Generated = #generated;

                fn finish(self, __generated: Self::Generated) -> Self::Entity {
                    #finish
                }

                fn unfinish(__entity: Self::Entity) -> Self {
                    #unfinish
                }

                fn given_key(&self) -> ::core::option::Option<<Self::Entity as ::diesel_session::Entity>::Key> {
                    // The first where this record gives each column of the key, else the second.
                    #[allow(unused_imports)]
                    use ::diesel_session::entity::derived::{KeyGiven as _, KeyUnknown as _};
                    (&::diesel_session::entity::derived::Keyed(self)).key()
                }
            }
        }
    }

    fn finish(&self) -> TokenStream {
        if self.generated.is_empty() {
            return quote!(__generated);
        }
        let literal = without_arguments(self.entity);
        let given = self.columns.items.iter().filter(|item| item.optional.is_none()).map(|item| {
            let name = &item.field.name;
            quote_spanned!(at(item.field.span())=> #name: self.#name,)
        });
        let generated = self.generated.iter().enumerate().map(|(index, generated)| {
            let (name, index) = (&generated.field, syn::Index::from(index));
            quote_spanned!(at(name.span())=> #name: __generated.#index,)
        });
        quote!(#literal { #(#given)* #(#generated)* })
    }

    fn unfinish(&self) -> TokenStream {
        let fields = self.model.fields.iter().map(|field| {
            let name = &field.name;
            let optional = self.columns.items.iter().any(|item| item.optional.is_some() && item.field.name == *name);
            let span = at(field.span());
            let value = if field.diesel.skip_insertion.is_some() {
                quote!(::core::default::Default::default())
            } else if optional {
                // `Some` where the entity's field is no `Option` itself.
                quote_spanned!(span=> ::core::convert::From::from(__entity.#name))
            } else {
                quote_spanned!(span=> __entity.#name)
            };
            quote_spanned!(span=> #name: #value,)
        });
        quote!(Self { #(#fields)* })
    }

    /// Which columns the record gives, for its key.
    fn gives_impls(&self) -> TokenStream {
        let this = self.model.this();
        let generics = self.model.generics_with(self.model.own_bounds());
        let (impl_generics, _, where_clause) = generics.split_for_impl();
        let impls = self.columns.items.iter().filter(|item| !item.field.embedded()).map(|item| {
            let (name, column) = (&item.field.name, self.model.column(&item.field.column));
            let (ty, value) = match item.optional {
                Some(inner) => (inner, quote!(self.#name.as_ref())),
                None => (&item.field.ty, quote!(::core::option::Option::Some(&self.#name))),
            };
            quote_spanned! {at(item.field.span())=>
                impl #impl_generics ::diesel_session::entity::derived::Gives<#column> for #this #where_clause {
                    type Value = #ty;

                    fn value(&self) -> ::core::option::Option<&Self::Value> {
                        #value
                    }
                }
            }
        });
        quote!(#(#impls)*)
    }

    fn new_row_impl(&self) -> TokenStream {
        let (this, entity) = (self.model.this(), self.entity);
        let generics = self.model.generics_with(self.model.own_bounds());
        let (impl_generics, _, where_clause) = generics.split_for_impl();
        let (names, types) = if self.generated.is_empty() {
            (
                quote!(<#entity as ::diesel_session::entity::derived::Names>::NAMES),
                quote!(<#entity as ::diesel_session::entity::derived::Names>::SqlTypes),
            )
        } else {
            let names = self.generated.iter().map(|generated| {
                let column = self.model.column(column_of(generated));
                quote_spanned!(at(generated.field.span())=> <#column as ::diesel::query_source::Column>::NAME)
            });
            let types = self.generated.iter().map(|generated| self.model.sql_type(column_of(generated)));
            (quote!(&[#(#names),*]), quote!((#(#types,)*)))
        };
        let optional: Vec<_> =
            self.columns.items.iter().enumerate().filter(|(_, item)| item.optional.is_some()).collect();
        let given = (!optional.is_empty()).then(|| {
            let left_out = optional.iter().map(|(index, item)| {
                let (name, number) = (&item.field.name, self.columns.number(*index));
                quote!(.with(#number, self.#name.is_none()))
            });
            quote! {
                fn given(&self) -> ::diesel_session::ColumnSet {
                    ::diesel_session::ColumnSet::first(<Self as ::diesel_session::entity::sql::Columns>::COUNT)
                        .without(::diesel_session::ColumnSet::NONE #(#left_out)*)
                }
            }
        });
        quote! {
            impl #impl_generics ::diesel_session::entity::sql::NewRow for #this #where_clause {
                const GENERATED: &'static [&'static str] = #names;
                type GeneratedSqlType = #types;
                #given
            }
        }
    }
}

/// An entity that is its own record: its columns are those of `#[derive(Entity)]`.
fn own_record(model: &Model, generated: &[Generated]) -> Result<TokenStream> {
    if entity::key(model).is_err() {
        return Err(Error::new(
            model.name.span(),
            "the record of which entity? Say `#[entity(of = …)]`: it has no key of its own that would make it one",
        ));
    }
    let columns = Columns::all(model);
    let mut fields: Vec<&Field> = Vec::new();
    for column in generated {
        if let Some(other) = &column.column {
            let message = "on an entity that is its own record the field's `column_name` says it";
            return Err(Error::new(other.span(), message));
        }
        let field = model.fields.iter().find(|field| field.name == column.field).ok_or_else(|| {
            Error::new(
                column.field.span(),
                format!(
                    "no field `{}`: without `of` this struct is the entity itself; if it is the record of another \
                     struct, say `of = …`",
                    column.field
                ),
            )
        })?;
        if field.embedded() {
            return Err(Error::new(column.field.span(), "an embedded struct can't be generated: name single columns"));
        }
        fields.push(field);
    }
    for field in &model.fields {
        if let Some(span) = field.diesel.skip_insertion
            && !fields.iter().any(|generated| generated.name == field.name)
        {
            let message =
                format!("`{}` is not inserted, so the database makes its value: list it in `generated(…)`", field.name);
            return Err(Error::new(span, message));
        }
    }

    let this = model.this();
    let bounds = entity::own_bounds(&columns);
    let generics = model.generics_with(bounds.clone());
    let (impl_generics, _, where_clause) = generics.split_for_impl();
    let types = fields.iter().map(|field| &field.ty);
    let finish = fields.iter().enumerate().map(|(index, field)| {
        let (name, index) = (&field.name, syn::Index::from(index));
        quote!(self.#name = __generated.#index;)
    });
    let (receiver, parameter) =
        if fields.is_empty() { (quote!(self), quote!(_)) } else { (quote!(mut self), quote!(__generated)) };
    let whole = fields.is_empty().then(|| {
        quote! {
            fn given_key(&self) -> ::core::option::Option<<Self as ::diesel_session::Entity>::Key> {
                ::core::option::Option::Some(<Self as ::diesel_session::Entity>::key(self))
            }

            fn as_entity(&self) -> ::core::option::Option<&Self> {
                ::core::option::Option::Some(self)
            }
        }
    });
    let part = (!fields.is_empty()).then(|| {
        let numbers = fields.iter().map(|field| columns.number_of(field));
        let key_numbers = fields.iter().map(|field| columns.number_of(field));
        (
            quote! {
                fn given_key(&self) -> ::core::option::Option<<Self as ::diesel_session::Entity>::Key> {
                    let __generated = ::diesel_session::ColumnSet::NONE #(.with(#key_numbers, true))*;
                    if <Self as ::diesel_session::Entity>::key_columns().meets(__generated) {
                        return ::core::option::Option::None;
                    }
                    ::core::option::Option::Some(<Self as ::diesel_session::Entity>::key(self))
                }
            },
            quote! {
                fn given(&self) -> ::diesel_session::ColumnSet {
                    ::diesel_session::ColumnSet::first(<Self as ::diesel_session::entity::sql::Columns>::COUNT)
                        .without(::diesel_session::ColumnSet::NONE #(.with(#numbers, true))*)
                }
            },
        )
    });
    let (part_key, part_given) = part.unzip();
    let names = fields.iter().map(|field| columns.sql_name(field));
    let sql_types = fields.iter().map(|field| model.sql_type(&field.column));
    let insert =
        insert_impls(&columns, &bounds, &if fields.is_empty() { quote!(insert_given) } else { quote!(insert) });
    let impls = quote! {
        impl #impl_generics ::diesel_session::Record for #this #where_clause {
            type Entity = <Self as ::diesel_session::entity::derived::OwnRecord>::Itself;

            type Generated = (#(#types,)*);

            fn finish(#receiver, #parameter: Self::Generated) -> Self {
                #(#finish)*
                self
            }

            fn unfinish(__entity: Self) -> Self {
                __entity
            }

            #whole
            #part_key
        }

        impl #impl_generics ::diesel_session::entity::sql::NewRow for #this #where_clause {
            const GENERATED: &'static [&'static str] = &[#(#names),*];
            type GeneratedSqlType = (#(#sql_types,)*);
            #part_given
        }
    };
    Ok(quote!(#impls #insert))
}

fn insert_impls(columns: &Columns<'_>, bounds: &[TokenStream], insert: &TokenStream) -> TokenStream {
    let model = columns.model;
    let this = model.this();
    let hooks = model.entity.hooks.then(|| {
        quote! {
            const HAS_HOOKS: bool = true;

            fn before_insert(&mut self, __record: &mut #this) -> ::diesel_session::Result<()> {
                <#this as ::diesel_session::RecordHooks<Self>>::before_insert(__record, self)
            }

            fn after_insert(
                &mut self,
                __entity: &<#this as ::diesel_session::Record>::Entity,
            ) -> ::diesel_session::Result<()> {
                <#this as ::diesel_session::RecordHooks<Self>>::after_insert(__entity, self)
            }
        }
    });
    backends::each(model, |database| {
        let (connection, backend) = (&database.connection, &database.backend);
        let mut bounds = bounds.to_vec();
        if !bounds.is_empty() {
            bounds.extend(columns.value_bounds(backend));
            let entity = quote!(<#this as ::diesel_session::Record>::Entity);
            bounds.push(quote! {
                (<#entity as ::diesel_session::Entity>::Key, <#this as ::diesel_session::Record>::Generated):
                    ::diesel::deserialize::FromSqlRow<
                        (
                            <#entity as ::diesel_session::entity::sql::Row>::KeySqlType,
                            <#this as ::diesel_session::entity::sql::NewRow>::GeneratedSqlType,
                        ),
                        #backend,
                    >
            });
        }
        let generics = model.generics_with(bounds);
        let (impl_generics, _, where_clause) = generics.split_for_impl();
        quote! {
            impl #impl_generics ::diesel_session::Insert<#this> for #connection #where_clause {
                fn insert(
                    &mut self,
                    __rows: &[&#this],
                ) -> ::diesel::result::QueryResult<::std::vec::Vec<<#this as ::diesel_session::Record>::Generated>> {
                    ::diesel_session::entity::sql::#insert::<Self, #this>(self, __rows)
                }

                fn insert_only(&mut self, __rows: &[&#this]) -> ::diesel::result::QueryResult<usize> {
                    ::diesel_session::entity::sql::insert_only::<Self, #this>(self, __rows)
                }

                #hooks
            }
        }
    })
}

/// The column of a generated field: called as the field unless another name is given.
fn column_of(generated: &Generated) -> &Ident {
    generated.column.as_ref().unwrap_or(&generated.field)
}

/// The path as a struct literal takes it.
fn without_arguments(path: &Path) -> Path {
    let mut path = path.clone();
    for segment in &mut path.segments {
        segment.arguments = PathArguments::None;
    }
    path
}
