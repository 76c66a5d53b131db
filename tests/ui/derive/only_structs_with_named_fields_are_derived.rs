use diesel_session::{Embedded, Entity, Record};

#[derive(Entity)]
enum Choice {
    This,
    That,
}

#[derive(Record)]
union Either {
    this: u32,
    that: f32,
}

#[derive(Entity)]
struct Pair(i32, String);

#[derive(Embedded)]
struct Nothing {}

#[derive(Record)]
struct Unit;

fn main() {}
