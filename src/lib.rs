//! crate docs
#![cfg_attr(docsrs, feature(doc_cfg))]

mod backend;
mod engine;
mod error;
mod info;
mod inspect;
mod migrate;
mod options;
mod place;
mod scope;
mod session;

pub use backend::{
    ConnectionSettings, ConnectionState, GateKey, GateRule, JournalMode, Kind, PreparedUrl, SessionConnection,
    Synchronous, Truth,
};
pub use engine::{Engine, EngineBuilder, StatementErrors, Strategy};
pub use error::{Cause, Error, ErrorClass, Failure, OptionalExt, Reason, Result};
pub use info::Info;
pub use inspect::{Counters, Holder, Holders, InspectReport, SessionReport, SessionState};
pub use options::{BeginMode, IsolationLevel, SessionOptions, TransactionOptions, autocommit, read_only};
pub use place::Place;
pub use scope::{ScopedFuture, ScopedSession};
pub use session::{
    Committed, HookError, HookResult, JoinMode, Outcome, Savepoint, Session, SessionListener, SessionQueryDsl,
    StatementInfo, StatementKind, TransactionInfo,
};
