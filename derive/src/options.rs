//! What stands in the parentheses of an attribute on a function: a connection type and options.

use proc_macro2::{Ident, TokenStream};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Expr, ExprLit, Lit, Result, Token, Type, token};

use crate::function::refuse;

/// What an option is given.
pub(crate) enum Kind {
    /// Nothing.
    Flag,
    /// The bare name of a variant of this enum.
    Variant(&'static str, &'static [&'static str]),
    /// A `Duration`.
    Duration,
    /// A `RetryPolicy`, or the number of attempts.
    Retry,
}

pub(crate) type Known = (&'static str, Kind);

pub(crate) const PROPAGATION: Kind =
    Kind::Variant("Propagation", &["Required", "RequiresNew", "Nested", "Mandatory", "Never"]);
pub(crate) const ISOLATION: Kind =
    Kind::Variant("IsolationLevel", &["ReadUncommitted", "ReadCommitted", "RepeatableRead", "Serializable"]);
pub(crate) const BEGIN_MODE: Kind = Kind::Variant("BeginMode", &["Deferred", "Immediate", "Exclusive"]);

/// What was given, each once.
pub(crate) struct Options {
    pub(crate) connection: Option<Type>,
    given: Vec<(&'static str, TokenStream)>,
}

impl Options {
    /// Reads the parentheses' contents, where these options are known.
    pub(crate) fn parse(known: &'static [Known], contents: TokenStream) -> Result<Self> {
        (|input: ParseStream<'_>| Self::read(known, input)).parse2(contents)
    }

    fn read(known: &'static [Known], input: ParseStream<'_>) -> Result<Self> {
        let mut options = Self { connection: None, given: Vec::new() };
        while !input.is_empty() {
            if is_option(known, input) {
                options.option(known, input)?;
            } else {
                options.connection(input)?;
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(options)
    }

    fn option(&mut self, known: &'static [Known], input: ParseStream<'_>) -> Result<()> {
        let key = input.call(Ident::parse_any)?;
        let Some((name, kind)) = known.iter().find(|(name, _)| key == name) else {
            let names: Vec<_> = known.iter().map(|(name, _)| format!("`{name}`")).collect();
            return refuse(&key, format!("unknown option `{key}`: the known ones are {}", names.join(", ")));
        };
        if self.has(name) {
            return refuse(&key, format!("`{key}` is given twice"));
        }
        let value = match kind {
            Kind::Flag if input.peek(Token![=]) || input.peek(token::Paren) => {
                return Err(input.error(format!("`{key}` takes no value: it is on where it stands")));
            }
            Kind::Flag => TokenStream::new(),
            _ if !input.peek(Token![=]) => {
                return refuse(&key, format!("`{key}` needs a value: `{key} = {}`", kind.example()));
            }
            _ => {
                input.parse::<Token![=]>()?;
                kind.value(&key, input)?
            }
        };
        self.given.push((name, quote_spanned!(key.span()=> .#key(#value))));
        Ok(())
    }

    fn connection(&mut self, input: ParseStream<'_>) -> Result<()> {
        let connection: Type = input.parse()?;
        if !matches!(connection, Type::Path(_)) {
            return refuse(&connection, "this is no connection type: name one, such as `SqliteConnection`");
        }
        if self.connection.is_some() {
            return refuse(&connection, "a connection type is named already, and it runs on one");
        }
        self.connection = Some(connection);
        Ok(())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.given.iter().any(|(given, _)| *given == name)
    }

    pub(crate) fn is_only(&self, name: &str) -> bool {
        self.has(name) && self.given.len() == 1
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.given.is_empty()
    }

    /// The calls that set these options, in the order of `known`.
    pub(crate) fn calls(&self, known: &'static [Known]) -> TokenStream {
        let given = |name: &str| self.given.iter().find(|(given, _)| *given == name).map(|(_, call)| call);
        known.iter().filter_map(|(name, _)| given(name)).cloned().collect()
    }
}

/// Whether an option comes next, and not a type.
fn is_option(known: &'static [Known], input: ParseStream<'_>) -> bool {
    let ahead = input.fork();
    let Ok(word) = ahead.call(Ident::parse_any) else { return false };
    if ahead.peek(Token![=]) || known.iter().any(|(name, _)| word == name) {
        return true;
    }
    // Types begin with a capital letter.
    (ahead.is_empty() || ahead.peek(Token![,])) && word.to_string().starts_with(|first: char| first.is_lowercase())
}

impl Kind {
    fn example(&self) -> &'static str {
        match self {
            Self::Flag => "",
            Self::Variant(_, names) => names.last().copied().unwrap_or_default(),
            Self::Duration => "Duration::from_secs(5)",
            Self::Retry => "3",
        }
    }

    fn value(&self, key: &Ident, input: ParseStream<'_>) -> Result<TokenStream> {
        match self {
            Self::Flag => Ok(TokenStream::new()),
            Self::Variant(of, names) => variant(key, of, names, input),
            Self::Duration => match input.parse()? {
                Expr::Lit(number) => {
                    refuse(number, format!("`{key}` is a `Duration`: `{key} = Duration::from_secs(5)`"))
                }
                duration => Ok(quote!(#duration)),
            },
            Self::Retry => match input.parse()? {
                Expr::Lit(ExprLit { lit: Lit::Int(attempts), .. }) => {
                    Ok(quote_spanned!(attempts.span()=> ::diesel_session::RetryPolicy::new(#attempts)))
                }
                Expr::Lit(other) => refuse(other, "`retry` is the number of attempts, or a `RetryPolicy`"),
                policy => Ok(quote!(#policy)),
            },
        }
    }
}

fn variant(key: &Ident, of: &str, names: &[&str], input: ParseStream<'_>) -> Result<TokenStream> {
    let value: Expr = input.parse()?;
    let path = match &value {
        Expr::Path(path) if path.qself.is_none() => &path.path,
        _ => return refuse(&value, format!("`{key}` is one of {}", list(names))),
    };
    let Some(name) =
        path.segments.last().map(|segment| &segment.ident).filter(|name| names.iter().any(|known| name == known))
    else {
        return refuse(&value, format!("unknown value of `{key}`: the known ones are {}", list(names)));
    };
    if path.get_ident().is_none() {
        return refuse(&value, format!("write the bare name: `{key} = {name}`"));
    }
    let of = Ident::new(of, name.span());
    Ok(quote_spanned!(name.span()=> ::diesel_session::#of::#name))
}

fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
