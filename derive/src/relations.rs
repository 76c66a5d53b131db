//! What an entity refers to: `belongs_to` and `depends_on`.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, Ident, Result, TypePath};

use crate::backends;
use crate::columns::at;
use crate::entity::Entity;
use crate::model::{Field, option_of};

/// A parent and the field that refers to it.
struct Parent<'a> {
    ty: &'a TypePath,
    field: &'a Field,
}

pub(crate) struct Relations<'a> {
    entity: &'a Entity<'a>,
    parents: Vec<Parent<'a>>,
}

pub(crate) fn of<'a>(entity: &'a Entity<'a>) -> Result<Relations<'a>> {
    let mut parents: Vec<Parent<'a>> = Vec::new();
    for relation in &entity.model.diesel.belongs_to {
        let ty = &relation.parent;
        if parents.iter().any(|known| known.ty.to_token_stream().to_string() == ty.to_token_stream().to_string()) {
            return Err(Error::new(
                ty.span(),
                "a second relation to the same parent: Diesel's `belongs_to` knows one; for the order of inserts and \
                 deletes one is enough",
            ));
        }
        let column = match &relation.foreign_key {
            Some(column) => column.clone(),
            None => default_foreign_key(ty)?,
        };
        let field = entity.model.fields.iter().find(|field| field.column == column && !field.embedded());
        let field = field.ok_or_else(|| {
            Error::new(
                relation.foreign_key.as_ref().map_or_else(|| ty.span(), Ident::span),
                format!("no field is the foreign key's column `{column}`: say `foreign_key = …`"),
            )
        })?;
        parents.push(Parent { ty, field });
    }
    Ok(Relations { entity, parents })
}

/// What Diesel takes: the parent's name in snake case and `_id`.
fn default_foreign_key(parent: &TypePath) -> Result<Ident> {
    let last = parent.path.segments.last().ok_or_else(|| Error::new(parent.span(), "expected a type"))?;
    let mut name = String::new();
    for (index, character) in last.ident.to_string().chars().enumerate() {
        if index > 0 && character.is_uppercase() {
            name.push('_');
        }
        name.extend(character.to_lowercase());
    }
    Ok(Ident::new(&format!("{name}_id"), last.ident.span()))
}

impl Relations<'_> {
    /// `depends_on` and `references`.
    pub(crate) fn methods(&self) -> TokenStream {
        let parents = self.parents.iter().map(|parent| parent.ty.to_token_stream());
        let others = self.entity.model.entity.depends_on.iter().flat_map(|(_, types)| types);
        let tables = parents.chain(others.map(ToTokens::to_token_stream)).map(|ty| {
            quote_spanned! {at(ty.span())=>
                ::diesel_session::TableId::of::<<#ty as ::diesel::associations::HasTable>::Table>()
            }
        });
        let tables: Vec<_> = tables.collect();
        let depends_on = (!tables.is_empty()).then(|| {
            quote! {
                fn depends_on() -> ::std::vec::Vec<::diesel_session::TableId> {
                    ::std::vec![#(#tables),*]
                }
            }
        });
        let visits = self.parents.iter().map(|parent| self.visit(parent));
        let references = (!self.parents.is_empty()).then(|| {
            quote! {
                fn references(&self, __visit: &mut dyn ::core::ops::FnMut(::diesel_session::Reference)) {
                    #(#visits)*
                }
            }
        });
        quote!(#depends_on #references)
    }

    fn visit(&self, parent: &Parent<'_>) -> TokenStream {
        let (ty, name) = (parent.ty, &parent.field.name);
        let number = self.entity.columns.number_of(parent.field);
        let visit = |value: TokenStream, nullable: TokenStream| {
            quote! {
                __visit(::diesel_session::Reference {
                    table: ::diesel_session::TableId::of::<<#ty as ::diesel::associations::HasTable>::Table>(),
                    key: ::diesel_session::entity::hash_of(#value),
                    nullable: #nullable,
                });
            }
        };
        if option_of(&parent.field.ty).is_some() {
            let visit = visit(quote!(__value), quote!(::core::option::Option::Some(#number)));
            quote!(if let ::core::option::Option::Some(__value) = &self.#name { #visit })
        } else {
            visit(quote!(&self.#name), quote!(::core::option::Option::None))
        }
    }

    /// `BelongsTo` and `LoadChildren` for each parent.
    pub(crate) fn impls(&self) -> TokenStream {
        let model = self.entity.model;
        if model.entity.no_relations.is_some() {
            return TokenStream::new();
        }
        let this = model.this();
        let impls = self.parents.iter().map(|parent| {
            let (ty, name) = (parent.ty, &parent.field.name);
            let number = self.entity.columns.number_of(parent.field);
            let key = if option_of(&parent.field.ty).is_some() {
                quote_spanned!(at(parent.field.ty.span())=> ::core::clone::Clone::clone(&self.#name))
            } else {
                quote_spanned! {at(parent.field.ty.span())=>
                    ::core::option::Option::Some(::core::clone::Clone::clone(&self.#name))
                }
            };
            let generics = model.generics_with(self.entity.bounds());
            let (impl_generics, _, where_clause) = generics.split_for_impl();
            let load = backends::each(model, |database| {
                let connection = &database.connection;
                let generics = model.generics_with(self.entity.stored_bounds(database));
                let (impl_generics, _, where_clause) = generics.split_for_impl();
                quote! {
                    impl #impl_generics ::diesel_session::LoadChildren<#this, #ty> for #connection #where_clause {
                        fn load_children(
                            &mut self,
                            __keys: &[<#ty as ::diesel_session::Entity>::Key],
                        ) -> ::diesel::result::QueryResult<::std::vec::Vec<#this>> {
                            ::diesel_session::entity::sql::load_children::<Self, #this, #ty>(
                                self,
                                __keys,
                                const { &[#number] },
                            )
                        }
                    }
                }
            });
            quote_spanned! {at(ty.span())=>
                impl #impl_generics ::diesel_session::BelongsTo<#ty> for #this #where_clause {
                    fn parent_key(&self) -> ::core::option::Option<<#ty as ::diesel_session::Entity>::Key> {
                        #key
                    }
                }

                #load
            }
        });
        quote!(#(#impls)*)
    }
}
