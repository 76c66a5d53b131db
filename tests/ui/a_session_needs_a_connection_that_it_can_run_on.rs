use diesel_session::Session;

struct MyConnection;

fn handler(_session: &Session<MyConnection>) {}

fn main() {}
