//! The struct that a derive stands on.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{
    Attribute, Data, DeriveInput, Error, Fields, GenericArgument, GenericParam, Generics, Ident, Path, PathArguments,
    Result, Type,
};

use crate::attrs::{self, Backend, DieselField, DieselStruct, EntityStruct};

/// A struct with its fields and what its attributes say.
pub(crate) struct Model {
    pub(crate) name: Ident,
    pub(crate) generics: Generics,
    pub(crate) table: Path,
    pub(crate) diesel: DieselStruct,
    pub(crate) entity: EntityStruct,
    pub(crate) fields: Vec<Field>,
}

/// A field: a column, or an embedded struct of several.
pub(crate) struct Field {
    pub(crate) name: Ident,
    pub(crate) ty: Type,
    pub(crate) column: Ident,
    pub(crate) diesel: DieselField,
    pub(crate) version: Option<Span>,
}

impl Model {
    /// `derive` and `what` are for the messages: "Entity" and "an entity".
    pub(crate) fn parse(input: DeriveInput, derive: &str, what: &str) -> Result<Self> {
        let refuse = |span: Span, found: &str| {
            let message = format!("`{derive}` can only be derived on a struct with named fields: this is {found}");
            Err(Error::new(span, message))
        };
        let fields = match input.data {
            Data::Enum(data) => return refuse(data.enum_token.span, "an enum"),
            Data::Union(data) => return refuse(data.union_token.span, "a union"),
            Data::Struct(data) => match data.fields {
                Fields::Named(fields) if fields.named.is_empty() => {
                    return refuse(input.ident.span(), "a struct without fields");
                }
                Fields::Named(fields) => fields.named,
                Fields::Unnamed(fields) => return refuse(fields.span(), "a tuple struct"),
                Fields::Unit => return refuse(input.ident.span(), "a struct without fields"),
            },
        };
        for param in &input.generics.params {
            if let GenericParam::Lifetime(lifetime) = param {
                return Err(Error::new(
                    lifetime.span(),
                    format!(
                        "{what} can't borrow: it waits in the session for a flush and outlives the call that made it; \
                         own the data (`String` for `&str`, `Vec<u8>` for `&[u8]`)"
                    ),
                ));
            }
        }
        let diesel = DieselStruct::parse(&input.attrs)?;
        let table = diesel.table_name.clone().unwrap_or_else(|| default_table(&input.ident).into());
        let mut parsed = Vec::new();
        for field in fields {
            // Named fields have names.
            let Some(name) = field.ident else { continue };
            parsed.push(Field::parse(name, field.ty, &field.attrs)?);
        }
        let entity = EntityStruct::parse(&input.attrs)?;
        let model = Self { name: input.ident, generics: input.generics, table, diesel, entity, fields: parsed };
        if let Some(part) = model.fields.iter().find(|field| field.embedded() && model.is_generic(&field.ty)) {
            return Err(Error::new(part.ty.span(), "an embedded struct can't depend on a type parameter"));
        }
        Ok(model)
    }

    /// The type itself, with its generics.
    pub(crate) fn this(&self) -> TokenStream {
        let name = &self.name;
        let (_, ty_generics, _) = self.generics.split_for_impl();
        quote!(#name #ty_generics)
    }

    /// The type that `table!` made for the table.
    pub(crate) fn table(&self) -> TokenStream {
        let table = &self.table;
        quote!(#table::table)
    }

    /// The type that `table!` made for a column.
    pub(crate) fn column(&self, column: &Ident) -> TokenStream {
        let table = &self.table;
        quote!(#table::#column)
    }

    /// The SQL type of a column.
    pub(crate) fn sql_type(&self, column: &Ident) -> TokenStream {
        let path = self.column(column);
        quote_spanned!(column.span()=> <#path as ::diesel::expression::Expression>::SqlType)
    }

    /// Whether a type names one of the struct's type parameters: then what is asked of it has to be said in bounds.
    pub(crate) fn is_generic(&self, ty: &Type) -> bool {
        mentions(ty.to_token_stream(), &self.generics)
    }

    /// The generics with more predicates.
    pub(crate) fn generics_with(&self, predicates: impl IntoIterator<Item = TokenStream>) -> Generics {
        let mut generics = self.generics.clone();
        let clause = generics.make_where_clause();
        for predicate in predicates {
            clause.predicates.push(syn::parse_quote!(#predicate));
        }
        generics
    }

    /// What every impl asks of type parameters: a tracked value outlives every borrow.
    pub(crate) fn own_bounds(&self) -> Vec<TokenStream> {
        self.generics.type_params().map(|param| &param.ident).map(|param| quote!(#param: 'static)).collect()
    }

    /// The databases that the struct is for.
    pub(crate) fn backends(&self) -> Vec<Backend> {
        let said = self.entity.backends.as_ref().or(self.diesel.check_for_backend.as_ref());
        said.cloned().unwrap_or_else(|| Backend::ALL.to_vec())
    }
}

impl Field {
    fn parse(name: Ident, ty: Type, attributes: &[Attribute]) -> Result<Self> {
        let diesel = DieselField::parse(attributes)?;
        let version = attrs::version(attributes)?;
        if let Some(span) = diesel.select_expression {
            return Err(Error::new(
                span,
                "what is read from an expression can't be written: only columns here, and a struct of its own for such \
                 a query",
            ));
        }
        if let (Some(_), Some((span, _))) = (diesel.embed, &diesel.serialize_as) {
            return Err(Error::new(*span, "`embed` can't be combined with `serialize_as`"));
        }
        let column = diesel.column_name.clone().unwrap_or_else(|| name.clone());
        Ok(Self { name, ty, column, diesel, version })
    }

    pub(crate) fn embedded(&self) -> bool {
        self.diesel.embed.is_some()
    }

    pub(crate) fn span(&self) -> Span {
        self.name.span()
    }

    /// The type in which the value is bound, where that is not the field's own.
    pub(crate) fn serialize_as(&self) -> Option<&Type> {
        self.diesel.serialize_as.as_ref().map(|(_, ty)| ty)
    }
}

/// What Diesel takes where there is no `table_name`: snake case and an `s`.
fn default_table(name: &Ident) -> Ident {
    let mut table = String::new();
    for (index, character) in name.unraw().to_string().chars().enumerate() {
        if index > 0 && character.is_uppercase() {
            table.push('_');
        }
        table.extend(character.to_lowercase());
    }
    table.push('s');
    Ident::new(&table, name.span())
}

/// `T` of `Option<T>`, as Diesel finds it: by the name.
pub(crate) fn option_of(ty: &Type) -> Option<&Type> {
    match ty {
        Type::Group(group) => option_of(&group.elem),
        Type::Paren(paren) => option_of(&paren.elem),
        Type::Path(path) => {
            let last = path.path.segments.last()?;
            match &last.arguments {
                PathArguments::AngleBracketed(arguments) if last.ident == "Option" => match arguments.args.last()? {
                    GenericArgument::Type(ty) => Some(ty),
                    _ => None,
                },
                _ => None,
            }
        }
        _ => None,
    }
}

fn mentions(tokens: TokenStream, generics: &Generics) -> bool {
    tokens.into_iter().any(|token| match token {
        proc_macro2::TokenTree::Ident(ident) => generics.type_params().any(|param| param.ident == ident),
        proc_macro2::TokenTree::Group(group) => mentions(group.stream(), generics),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_called_as_diesel_calls_it() {
        for (name, table) in [("User", "users"), ("BlogPost", "blog_posts"), ("HTTPLog", "h_t_t_p_logs")] {
            assert_eq!(default_table(&Ident::new(name, Span::call_site())), table);
        }
    }
}
