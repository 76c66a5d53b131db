//! The columns of a struct: their numbers, their names, and how their values are bound.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::{Generics, Type};

use crate::model::{Field, Model};

/// A span that points at the user's token and resolves names as the rest of the expansion does.
pub(crate) fn at(span: Span) -> Span {
    Span::call_site().located_at(span)
}

/// A field that is bound: a column or an embedded part.
pub(crate) struct Item<'a> {
    pub(crate) field: &'a Field,
    /// `T` where the field is an `Option<T>` that says whether the column is given at all.
    pub(crate) optional: Option<&'a Type>,
}

impl Item<'_> {
    /// The type that is bound.
    fn value(&self) -> &Type {
        self.field.serialize_as().or(self.optional).unwrap_or(&self.field.ty)
    }
}

/// The fields that are columns, in their order.
pub(crate) struct Columns<'a> {
    pub(crate) model: &'a Model,
    pub(crate) items: Vec<Item<'a>>,
}

impl<'a> Columns<'a> {
    pub(crate) fn all(model: &'a Model) -> Self {
        let items = model.fields.iter().map(|field| Item { field, optional: None }).collect();
        Self { model, items }
    }

    /// The number of the first column of an item, as a constant expression.
    pub(crate) fn number(&self, index: usize) -> TokenStream {
        sum(&self.items[..index])
    }

    /// The number of a field's column.
    pub(crate) fn number_of(&self, field: &Field) -> TokenStream {
        let index = self.items.iter().position(|item| item.field.name == field.name).unwrap_or_default();
        self.number(index)
    }

    pub(crate) fn count(&self) -> TokenStream {
        sum(&self.items)
    }

    /// `diff`'s body: the columns that differ from `__old`'s.
    pub(crate) fn diff(&self) -> TokenStream {
        let steps = self.items.iter().enumerate().map(|(index, item)| {
            let (name, number) = (&item.field.name, self.number(index));
            if item.field.embedded() {
                quote_spanned! {at(item.field.span())=>
                    __set = __set | ::diesel_session::Embedded::diff(&self.#name, &__old.#name).shifted(#number);
                }
            } else {
                quote_spanned! {at(item.field.span())=>
                    __set = __set.with(#number, ::core::cmp::PartialEq::ne(&self.#name, &__old.#name));
                }
            }
        });
        quote! {
            let mut __set = ::diesel_session::ColumnSet::NONE;
            #(#steps)*
            __set
        }
    }

    /// What `diff` asks of fields whose types name type parameters.
    pub(crate) fn diff_bounds(&self) -> Vec<TokenStream> {
        let generic = self.items.iter().map(|item| &item.field.ty).filter(|ty| self.model.is_generic(ty));
        generic.map(|ty| quote!(#ty: ::core::cmp::PartialEq)).collect()
    }

    /// `impl Columns`, `impl Bind`, and the struct that is bound where a reference does not do.
    pub(crate) fn impls(&self) -> TokenStream {
        let this = self.model.this();
        let generics = self.model.generics_with(self.bounds());
        let (impl_generics, _, where_clause) = generics.split_for_impl();
        let (bound_type, bound_value, bound_struct) = self.bound();
        let count = self.count();
        let name = self.name_body();
        let is_integer = self.is_integer_body();
        let bind = self.bind_impl(&bound_type);
        quote! {
            #bound_struct

            impl #impl_generics ::diesel_session::entity::sql::Columns for #this #where_clause {
                const COUNT: usize = #count;

                fn name(__column: usize) -> &'static str {
                    #name
                }

                fn is_integer(__column: usize) -> bool {
                    #is_integer
                }

                type Bound<'__a> = #bound_type;

                fn bound(&self) -> Self::Bound<'_> {
                    #bound_value
                }
            }

            #bind
        }
    }

    /// `impl Names`: the columns as constants.
    pub(crate) fn names_impl(&self) -> TokenStream {
        let this = self.model.this();
        let generics = self.model.generics_with(self.model.own_bounds());
        let (impl_generics, _, where_clause) = generics.split_for_impl();
        let types = self.items.iter().map(|item| {
            let ty = &item.field.ty;
            if item.field.embedded() {
                quote!(<#ty as ::diesel_session::entity::derived::Names>::SqlTypes)
            } else {
                self.model.sql_type(&item.field.column)
            }
        });
        let lists = self.items.iter().map(|item| {
            let ty = &item.field.ty;
            if item.field.embedded() {
                quote!(<#ty as ::diesel_session::entity::derived::Names>::NAMES)
            } else {
                let name = self.sql_name(item.field);
                quote!(&[#name])
            }
        });
        let names = if self.items.iter().any(|item| item.field.embedded()) {
            let count = self.count();
            quote!(&::diesel_session::entity::derived::joined::<{ #count }>(&[#(#lists),*]))
        } else {
            let names = self.items.iter().map(|item| self.sql_name(item.field));
            quote!(&[#(#names),*])
        };
        quote! {
            impl #impl_generics ::diesel_session::entity::derived::Names for #this #where_clause {
                const NAMES: &'static [&'static str] = #names;
                type SqlTypes = (#(#types,)*);
            }
        }
    }

    pub(crate) fn sql_name(&self, field: &Field) -> TokenStream {
        let column = self.model.column(&field.column);
        quote_spanned!(at(field.column.span())=> <#column as ::diesel::query_source::Column>::NAME)
    }

    /// What is asked of types that name type parameters, for their values to be bound.
    pub(crate) fn value_bounds(&self, backend: &TokenStream) -> Vec<TokenStream> {
        let generic = self.items.iter().filter(|item| self.model.is_generic(&item.field.ty));
        generic
            .flat_map(|item| {
                let sql_type = self.model.sql_type(&item.field.column);
                let value = item.value();
                [
                    quote!(#value: ::diesel::serialize::ToSql<#sql_type, #backend>),
                    quote!(#backend: ::diesel::sql_types::HasSqlType<#sql_type>),
                ]
            })
            .collect()
    }

    /// What `impl Columns` asks of types that name type parameters.
    fn bounds(&self) -> Vec<TokenStream> {
        let converted = self.items.iter().filter_map(|item| {
            let ty = &item.field.ty;
            let target = item.field.serialize_as().filter(|_| self.model.is_generic(ty))?;
            Some(quote!(#ty: ::core::clone::Clone + ::core::convert::Into<#target>))
        });
        self.model.own_bounds().into_iter().chain(converted).collect()
    }

    /// Whether references alone can be bound.
    fn by_reference(&self) -> bool {
        !self.items.iter().any(|item| item.field.embedded() || item.field.serialize_as().is_some())
    }

    /// The type that is bound, how it is made of `self`, and its definition.
    fn bound(&self) -> (TokenStream, TokenStream, TokenStream) {
        let this = self.model.this();
        if self.by_reference() {
            return (quote!(&'__a #this), quote!(self), TokenStream::new());
        }
        let name = format_ident!("__{}Bound", self.model.name);
        let generics = self.with_lifetime(self.bounds());
        let (_, ty_generics, where_clause) = generics.split_for_impl();
        let params = &generics.params;
        let (mut definitions, mut values) = (Vec::new(), Vec::new());
        for (index, item) in self.items.iter().enumerate() {
            let (slot, field, ty) = (format_ident!("__part{index}"), &item.field.name, &item.field.ty);
            let span = at(item.field.span());
            if item.field.embedded() {
                definitions
                    .push(quote_spanned!(span=> #slot: <#ty as ::diesel_session::entity::sql::Columns>::Bound<'__a>));
                values.push(quote_spanned!(span=> #slot: ::diesel_session::entity::sql::Columns::bound(&self.#field)));
            } else if let Some(target) = item.field.serialize_as() {
                definitions.push(quote_spanned!(span=> #slot: #target));
                values.push(quote_spanned! {span=>
                    #slot: <#ty as ::core::convert::Into<#target>>::into(::core::clone::Clone::clone(&self.#field))
                });
            }
        }
        let definition = quote! {
            pub struct #name<#params> #where_clause {
                __row: &'__a #this,
                #(#definitions,)*
            }
        };
        (quote!(#name #ty_generics), quote!(#name { __row: self, #(#values,)* }), definition)
    }

    fn with_lifetime(&self, predicates: Vec<TokenStream>) -> Generics {
        let mut generics = self.model.generics_with(predicates);
        generics.params.insert(0, syn::parse_quote!('__a));
        for param in generics.type_params_mut() {
            param.default = None;
            param.eq_token = None;
        }
        generics
    }

    fn name_body(&self) -> TokenStream {
        let steps = self.steps(
            |_, item| {
                let name = self.sql_name(item.field);
                quote!(return #name)
            },
            |_, item| {
                let ty = &item.field.ty;
                quote!(return <#ty as ::diesel_session::entity::sql::Columns>::name(__column))
            },
        );
        quote! {
            #steps
            ""
        }
    }

    fn is_integer_body(&self) -> TokenStream {
        let steps = self.steps(
            |_, item| {
                let sql_type = self.model.sql_type(&item.field.column);
                quote_spanned!(at(item.field.span())=> return ::diesel_session::entity::sql::is_integer::<#sql_type>())
            },
            |_, item| {
                let ty = &item.field.ty;
                quote!(return <#ty as ::diesel_session::entity::sql::Columns>::is_integer(__column))
            },
        );
        quote! {
            #steps
            false
        }
    }

    fn bind_impl(&self, bound: &TokenStream) -> TokenStream {
        let mut predicates = self.bounds();
        for item in &self.items {
            let span = at(item.field.span());
            if item.field.embedded() {
                let ty = &item.field.ty;
                predicates.push(quote_spanned! {span=>
                    <#ty as ::diesel_session::entity::sql::Columns>::Bound<'__a>: ::diesel_session::entity::sql::Bind<__DB>
                });
            } else {
                let sql_type = self.model.sql_type(&item.field.column);
                let value = item.value();
                predicates.push(quote_spanned!(span=> #value: ::diesel::serialize::ToSql<#sql_type, __DB>));
                predicates.push(quote_spanned!(span=> __DB: ::diesel::sql_types::HasSqlType<#sql_type>));
            }
        }
        let mut generics = self.with_lifetime(predicates);
        generics.params.push(syn::parse_quote!(__DB: ::diesel::backend::Backend));
        let (impl_generics, _, where_clause) = generics.split_for_impl();
        let row = if self.by_reference() { quote!(self) } else { quote!(self.__row) };
        let steps = self.steps(
            |index, item| {
                let (name, sql_type) = (&item.field.name, self.model.sql_type(&item.field.column));
                let value = item.value();
                let span = at(item.field.span());
                if item.optional.is_some() {
                    return quote_spanned! {span=>
                        if let ::core::option::Option::Some(__value) = &#row.#name {
                            return __out.push_bind_param::<#sql_type, #value>(__value);
                        }
                    };
                }
                let slot = format_ident!("__part{index}");
                let place = if item.field.serialize_as().is_some() { quote!(&self.#slot) } else { quote!(&#row.#name) };
                quote_spanned!(span=> return __out.push_bind_param::<#sql_type, #value>(#place))
            },
            |index, _| {
                let slot = format_ident!("__part{index}");
                quote!(return ::diesel_session::entity::sql::Bind::<__DB>::bind(&self.#slot, __column, __out))
            },
        );
        let lists = self.lists();
        quote! {
            impl #impl_generics ::diesel_session::entity::sql::Bind<__DB> for #bound #where_clause {
                fn bind<'__b>(
                    &'__b self,
                    __column: usize,
                    mut __out: ::diesel::query_builder::AstPass<'_, '__b, __DB>,
                ) -> ::diesel::result::QueryResult<()> {
                    #steps
                    ::diesel_session::entity::derived::no_value(__column)
                }

                fn list<'__r>(
                    __rows: &mut dyn ::core::iter::Iterator<Item = &'__r Self>,
                    __column: usize,
                    __lookup: &mut <__DB as ::diesel::sql_types::TypeMetadata>::MetadataLookup,
                ) -> ::core::option::Option<::std::boxed::Box<dyn ::diesel_session::entity::sql::List<__DB> + '__r>>
                where
                    Self: '__r,
                    __DB: ::diesel_session::entity::sql::Listing,
                {
                    #lists
                    ::core::option::Option::None
                }
            }
        }
    }

    /// The values of `__column` in `__rows`, as one list.
    fn lists(&self) -> TokenStream {
        let row = if self.by_reference() { quote!(__row) } else { quote!(__row.__row) };
        self.steps(
            |index, item| {
                let (name, sql_type, value) = (&item.field.name, self.model.sql_type(&item.field.column), item.value());
                let slot = format_ident!("__part{index}");
                let values = if item.optional.is_some() {
                    quote!(__rows.filter_map(|__row| ::core::option::Option::as_ref(&#row.#name)))
                } else if item.field.serialize_as().is_some() {
                    quote!(__rows.map(|__row| &__row.#slot))
                } else {
                    quote!(__rows.map(|__row| &#row.#name))
                };
                quote_spanned! {at(item.field.span())=>
                    return <__DB as ::diesel_session::entity::sql::Listing>::list::<#sql_type, #value>(
                        &mut #values,
                        __lookup,
                    )
                }
            },
            |index, _| {
                let slot = format_ident!("__part{index}");
                quote! {
                    return ::diesel_session::entity::sql::Bind::<__DB>::list(
                        &mut __rows.map(|__row| &__row.#slot),
                        __column,
                        __lookup,
                    )
                }
            },
        )
    }

    /// A decision over `__column`: `column` for each column, `part` with the number within it for each embedded part.
    fn steps(
        &self,
        column: impl Fn(usize, &Item<'_>) -> TokenStream,
        part: impl Fn(usize, &Item<'_>) -> TokenStream,
    ) -> TokenStream {
        let (mut steps, mut arms) = (Vec::new(), Vec::new());
        for (index, item) in self.items.iter().enumerate() {
            if !item.field.embedded() {
                let (number, arm) = (arms.len(), column(index, item));
                arms.push(quote!(#number => { #arm }));
                continue;
            }
            let (passed, ty, step) = (arms.len(), &item.field.ty, part(index, item));
            if passed > 0 {
                steps.push(quote! {
                    match __column { #(#arms)* _ => {} }
                    let __column = __column - #passed;
                });
                arms.clear();
            }
            steps.push(quote! {
                if __column < <#ty as ::diesel_session::entity::sql::Columns>::COUNT {
                    #step;
                }
                let __column = __column - <#ty as ::diesel_session::entity::sql::Columns>::COUNT;
            });
        }
        if !arms.is_empty() {
            steps.push(quote!(match __column { #(#arms)* _ => {} }));
        }
        quote!(#(#steps)*)
    }
}

fn sum(items: &[Item<'_>]) -> TokenStream {
    let own = items.iter().filter(|item| !item.field.embedded()).count();
    let parts = items.iter().filter(|item| item.field.embedded()).map(|item| &item.field.ty);
    quote!(#own #(+ <#parts as ::diesel_session::entity::sql::Columns>::COUNT)*)
}
