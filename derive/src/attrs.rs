//! The attributes that the derives read: Diesel's and their own.

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Attribute, Error, Expr, Ident, LitBool, LitStr, Path, Result, Token, Type, TypePath, parenthesized};

/// `belongs_to(Parent, foreign_key = column)`.
pub(crate) struct Relation {
    pub(crate) parent: TypePath,
    pub(crate) foreign_key: Option<Ident>,
}

/// A database that the crate knows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    Sqlite,
    Postgres,
    Mysql,
}

impl Backend {
    pub(crate) const ALL: [Self; 3] = [Self::Sqlite, Self::Postgres, Self::Mysql];
}

/// What `#[diesel(…)]` says of a struct, as far as the derives need it.
#[derive(Default)]
pub(crate) struct DieselStruct {
    pub(crate) table_name: Option<Path>,
    pub(crate) primary_key: Option<Vec<Ident>>,
    pub(crate) belongs_to: Vec<Relation>,
    pub(crate) check_for_backend: Option<Vec<Backend>>,
}

/// What `#[diesel(…)]` says of a field.
#[derive(Default)]
pub(crate) struct DieselField {
    pub(crate) column_name: Option<Ident>,
    pub(crate) embed: Option<Span>,
    pub(crate) serialize_as: Option<(Span, Type)>,
    pub(crate) skip_insertion: Option<Span>,
    pub(crate) select_expression: Option<Span>,
}

/// A column that the database generates: the entity's field, and the column where it is called otherwise.
pub(crate) struct Generated {
    pub(crate) field: Ident,
    pub(crate) column: Option<Ident>,
}

/// What `#[entity(…)]` says of a struct.
#[derive(Default)]
pub(crate) struct EntityStruct {
    pub(crate) of: Option<(Span, Path)>,
    pub(crate) generated: Option<(Span, Vec<Generated>)>,
    pub(crate) table: Option<LitStr>,
    pub(crate) depends_on: Option<(Span, Vec<Type>)>,
    pub(crate) backends: Option<Vec<Backend>>,
    pub(crate) hooks: bool,
    pub(crate) no_relations: Option<Span>,
}

impl DieselStruct {
    pub(crate) fn parse(attrs: &[Attribute]) -> Result<Self> {
        let mut found = Self::default();
        each(attrs, "diesel", |key, input| {
            match key.to_string().as_str() {
                "table_name" => {
                    let path = equals(input, Path::parse_mod_style)?;
                    // Several tables are Diesel's way for an `Insertable` that serves them all; the first is the entity's.
                    found.table_name.get_or_insert(path);
                }
                "primary_key" => {
                    let keys = in_parens(input, |content| content.parse_terminated(Ident::parse, Token![,]))?;
                    found.primary_key = Some(keys.into_iter().collect());
                }
                "belongs_to" => found.belongs_to.push(in_parens(input, relation)?),
                "check_for_backend" => found.check_for_backend = checked_backends(input)?,
                _ => skip(input)?,
            }
            Ok(())
        })?;
        Ok(found)
    }
}

impl DieselField {
    pub(crate) fn parse(attrs: &[Attribute]) -> Result<Self> {
        let mut found = Self::default();
        each(attrs, "diesel", |key, input| {
            match key.to_string().as_str() {
                "column_name" => found.column_name = Some(equals(input, column_name)?),
                "embed" => found.embed = Some(key.span()),
                "serialize_as" => found.serialize_as = Some((key.span(), equals(input, Type::parse)?)),
                "skip_insertion" => found.skip_insertion = Some(key.span()),
                "select_expression" => {
                    found.select_expression = Some(key.span());
                    equals(input, Expr::parse)?;
                }
                "select_expression_type" | "deserialize_as" | "sql_type" => {
                    equals(input, Type::parse)?;
                }
                "treat_none_as_default_value" | "treat_none_as_null" => {
                    equals(input, LitBool::parse)?;
                }
                _ => skip(input)?,
            }
            Ok(())
        })?;
        Ok(found)
    }
}

const STRUCT_KEYS: &str =
    "`of`, `generated`, `table`, `depends_on`, `backends`, `hooks`, `no_relations`; on a field `version`";

impl EntityStruct {
    pub(crate) fn parse(attrs: &[Attribute]) -> Result<Self> {
        let mut found = Self::default();
        each(attrs, "entity", |key, input| {
            match key.to_string().as_str() {
                "of" => {
                    let path = equals(input, Path::parse)?;
                    once(found.of.is_some(), &key)?;
                    found.of = Some((key.span(), path));
                }
                "generated" => {
                    let columns = in_parens(input, |content| content.parse_terminated(generated, Token![,]))?;
                    once(found.generated.is_some(), &key)?;
                    if columns.is_empty() {
                        return Err(Error::new(
                            key.span(),
                            "name the columns that the database generates, or leave `generated` out",
                        ));
                    }
                    found.generated = Some((key.span(), columns.into_iter().collect()));
                }
                "table" => {
                    let name = equals(input, <LitStr as Parse>::parse)?;
                    once(found.table.is_some(), &key)?;
                    found.table = Some(name);
                }
                "depends_on" => {
                    let tables = in_parens(input, |content| content.parse_terminated(Type::parse, Token![,]))?;
                    once(found.depends_on.is_some(), &key)?;
                    found.depends_on = Some((key.span(), tables.into_iter().collect()));
                }
                "backends" => {
                    let names = in_parens(input, |content| content.parse_terminated(backend, Token![,]))?;
                    once(found.backends.is_some(), &key)?;
                    found.backends = Some(names.into_iter().collect());
                }
                "hooks" => {
                    once(found.hooks, &key)?;
                    found.hooks = true;
                }
                "no_relations" => found.no_relations = Some(key.span()),
                "version" => {
                    return Err(Error::new(
                        key.span(),
                        "`version` stands on the field that holds the version, not on the struct",
                    ));
                }
                _ => return Err(unknown(&key)),
            }
            Ok(())
        })?;
        Ok(found)
    }
}

/// The place of `#[entity(version)]` on a field.
pub(crate) fn version(attrs: &[Attribute]) -> Result<Option<Span>> {
    let mut found = None;
    each(attrs, "entity", |key, _| {
        if key != "version" {
            return Err(match key.to_string().as_str() {
                "of" | "generated" | "table" | "depends_on" | "backends" | "hooks" | "no_relations" => {
                    Error::new(key.span(), format!("`{key}` stands on the struct; on a field there is only `version`"))
                }
                _ => unknown(&key),
            });
        }
        found = Some(key.span());
        Ok(())
    })?;
    Ok(found)
}

fn unknown(key: &Ident) -> Error {
    Error::new(key.span(), format!("unknown key `{key}`: the known ones are {STRUCT_KEYS}"))
}

fn once(again: bool, key: &Ident) -> Result<()> {
    if again { Err(Error::new(key.span(), format!("`{key}` is given twice"))) } else { Ok(()) }
}

/// Calls `item` for each key of each attribute of this name; it takes what follows the key.
fn each(attrs: &[Attribute], name: &str, mut item: impl FnMut(Ident, ParseStream<'_>) -> Result<()>) -> Result<()> {
    for attr in attrs.iter().filter(|attr| attr.path().is_ident(name)) {
        attr.parse_args_with(|input: ParseStream<'_>| {
            while !input.is_empty() {
                let key = Ident::parse_any(input)?;
                item(key, input)?;
                if !input.is_empty() {
                    input.parse::<Token![,]>()?;
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn equals<T>(input: ParseStream<'_>, parse: impl FnOnce(ParseStream<'_>) -> Result<T>) -> Result<T> {
    input.parse::<Token![=]>()?;
    parse(input)
}

fn in_parens<T>(input: ParseStream<'_>, parse: impl FnOnce(ParseStream<'_>) -> Result<T>) -> Result<T> {
    let content;
    parenthesized!(content in input);
    let value = parse(&content)?;
    if content.is_empty() { Ok(value) } else { Err(content.error("unexpected token")) }
}

/// Passes over what belongs to Diesel alone.
fn skip(input: ParseStream<'_>) -> Result<()> {
    while !input.is_empty() && !input.peek(Token![,]) {
        input.parse::<TokenTree>()?;
    }
    Ok(())
}

fn relation(input: ParseStream<'_>) -> Result<Relation> {
    let parent = input.parse()?;
    let mut foreign_key = None;
    if !input.is_empty() {
        input.parse::<Token![,]>()?;
    }
    if !input.is_empty() {
        // Anything else than `foreign_key` is for Diesel to refuse.
        input.parse::<Ident>()?;
        foreign_key = Some(equals(input, Ident::parse)?);
        input.parse::<Option<Token![,]>>()?;
    }
    Ok(Relation { parent, foreign_key })
}

/// As Diesel reads it: a name, or a string that `table!` made a name of.
fn column_name(input: ParseStream<'_>) -> Result<Ident> {
    if input.peek(LitStr) {
        let literal: LitStr = input.parse()?;
        let parsed =
            literal.parse::<Ident>().or_else(|_| literal.parse_with(Ident::parse_any).map(|name| raw(&name)))?;
        return Ok(parsed);
    }
    input.parse()
}

fn raw(name: &Ident) -> Ident {
    Ident::new_raw(&name.unraw().to_string(), name.span())
}

fn generated(input: ParseStream<'_>) -> Result<Generated> {
    let field = input.parse()?;
    let column = if input.peek(Token![=]) { Some(equals(input, column_name)?) } else { None };
    Ok(Generated { field, column })
}

fn backend(input: ParseStream<'_>) -> Result<Backend> {
    let name: Ident = input.parse()?;
    match name.to_string().as_str() {
        "sqlite" => Ok(Backend::Sqlite),
        "postgres" => Ok(Backend::Postgres),
        "mysql" => Ok(Backend::Mysql),
        _ => Err(Error::new(
            name.span(),
            format!("unknown backend `{name}`: the known ones are `sqlite`, `postgres`, `mysql`"),
        )),
    }
}

/// The backends that `check_for_backend` names; `None` where it only turns the check off.
fn checked_backends(input: ParseStream<'_>) -> Result<Option<Vec<Backend>>> {
    in_parens(input, |content| {
        if content.peek(Ident) && content.peek2(Token![=]) {
            content.parse::<TokenStream>()?;
            return Ok(None);
        }
        let types = Punctuated::<TypePath, Token![,]>::parse_terminated(content)?;
        // Another crate's backend is no business of this one.
        let known = types.iter().filter_map(|backend| match backend.path.segments.last()?.ident.to_string().as_str() {
            "Sqlite" => Some(Backend::Sqlite),
            "Pg" => Some(Backend::Postgres),
            "Mysql" => Some(Backend::Mysql),
            _ => None,
        });
        Ok(Some(known.collect()))
    })
}
