//! A database of its own on a server, dropped at the end.

use crate::work::Fallible;

/// The server's URL from the environment, without its database, and what follows the database's name.
pub fn admin(variable: &str, default: &str) -> Fallible<(String, String, String)> {
    let admin = std::env::var(variable).unwrap_or_else(|_| default.to_owned());
    let (path, query) =
        admin.split_once('?').map_or((admin.as_str(), String::new()), |(path, query)| (path, format!("?{query}")));
    let slash = path.rfind('/').ok_or("the server's URL has no database name")?;
    Ok((admin.clone(), path[..slash].to_owned(), query))
}

/// A name that no other run uses.
pub fn database_name() -> Fallible<String> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(format!("ds_compare_{}_{}", std::process::id(), now.as_micros()))
}
