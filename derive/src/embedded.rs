//! `#[derive(Embedded)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{DeriveInput, Error, Result};

use crate::columns::Columns;
use crate::model::Model;

pub(crate) fn derive(input: DeriveInput) -> Result<TokenStream> {
    let attributes = input.attrs.iter().find(|attr| attr.path().is_ident("entity")).cloned();
    let model = Model::parse(input, "Embedded", "an embedded struct")?;
    if let Some(attribute) = attributes {
        return Err(Error::new_spanned(attribute, "an embedded struct takes no `entity(…)`: it belongs on the entity"));
    }
    if let Some(span) = model.fields.iter().find_map(|field| field.version) {
        return Err(Error::new(span, "the version belongs on a field of the entity itself"));
    }
    let columns = Columns::all(&model);
    let this = model.this();
    let mut bounds = model.own_bounds();
    if !bounds.is_empty() {
        bounds.push(quote!(#this: ::core::clone::Clone));
        bounds.extend(columns.diff_bounds());
    }
    let generics = model.generics_with(bounds);
    let (impl_generics, _, where_clause) = generics.split_for_impl();
    let (impls, names, diff) = (columns.impls(), columns.names_impl(), columns.diff());
    Ok(quote! {
        #impls
        #names

        impl #impl_generics ::diesel_session::Embedded for #this #where_clause {
            fn diff(&self, __old: &Self) -> ::diesel_session::ColumnSet {
                #diff
            }
        }
    })
}
