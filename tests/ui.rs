//! What must not compile, and that the compiler says why in words that help.
//!
//! The expected texts are those of the stable compiler with SQLite alone: with other backends on, the compiler lists more
//! types. `TRYBUILD=overwrite cargo test --test ui` writes them anew.
#![cfg(all(feature = "sqlite", not(feature = "postgres"), not(feature = "mysql")))]

#[test]
fn misuse_does_not_compile_and_the_message_says_why() {
    let tests = trybuild::TestCases::new();
    tests.compile_fail("tests/ui/*.rs");
    tests.compile_fail("tests/ui/derive/*.rs");
    tests.compile_fail("tests/ui/transactional/*.rs");
    tests.compile_fail("tests/ui/on_database_thread/*.rs");
}
