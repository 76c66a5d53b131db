//! The command line.

use std::net::SocketAddr;

use lexopt::prelude::*;

use crate::database::{DEFAULT_URL, NAME};

/// More connections than this help nobody.
const LARGEST_POOL: usize = 1000;

#[derive(Debug)]
pub(crate) struct Options {
    /// Where to listen; the loopback interface unless told otherwise, because nothing here checks who is asking.
    pub(crate) address: SocketAddr,
    /// The file or URL; `None` where the build has no default.
    pub(crate) database: Option<String>,
    pub(crate) pool_size: usize,
    pub(crate) demo: bool,
    pub(crate) help: bool,
}

pub(crate) fn help() -> String {
    let database = match DEFAULT_URL {
        Some(file) => format!("the {NAME} file [default: {file}; the demo takes a temporary one]"),
        None => format!("the URL of the {NAME} database, needed"),
    };
    format!(
        "An HTTP service for users and their posts, stored in {NAME}.\n\n\
         Usage: cargo run --example users_service -- [options]\n\n\
         \x20 --address <ip:port>    where to listen; port 0 takes a free one [default: 127.0.0.1:8000]\n\
         \x20 --database <database>  {database}\n\
         \x20 --pool-size <n>        connections at most [default: 8]\n\
         \x20 --demo                 start on a free port, be used by many clients at once, check every answer, stop\n\
         \x20 --help                 this text"
    )
}

impl Options {
    pub(crate) fn parse(mut arguments: lexopt::Parser) -> Result<Self, lexopt::Error> {
        let mut options = Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8000)),
            database: None,
            pool_size: 8,
            demo: false,
            help: false,
        };
        while let Some(argument) = arguments.next()? {
            match argument {
                Long("address") => {
                    let value = arguments.value()?.string()?;
                    options.address = value.parse().map_err(|_| {
                        format!("--address {value:?}: give an IP address and a port, such as 127.0.0.1:8000")
                    })?;
                }
                Long("database") => options.database = Some(arguments.value()?.string()?),
                Long("pool-size") => {
                    let value = arguments.value()?.string()?;
                    options.pool_size = value
                        .parse()
                        .ok()
                        .filter(|n| (1..=LARGEST_POOL).contains(n))
                        .ok_or_else(|| format!("--pool-size {value:?}: give a number from 1 to {LARGEST_POOL}"))?;
                }
                Long("demo") => options.demo = true,
                Long("help") | Short('h') => options.help = true,
                other => return Err(other.unexpected()),
            }
        }
        if options.database.is_none() && !options.help {
            options.database = DEFAULT_URL.filter(|_| !options.demo).map(str::to_owned);
            if options.database.is_none() && DEFAULT_URL.is_none() {
                return Err(format!("--database is needed: the URL of the {NAME} database").into());
            }
        }
        Ok(options)
    }
}
