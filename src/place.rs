//! Places in the caller's source.

use std::panic::Location;

/// A place in the caller's source: file, line and column.
///
/// Every method that begins, ends or refuses something is `#[track_caller]`, so a place is always the line of the
/// user's own code.
pub type Place = &'static Location<'static>;
