use diesel_session::Record;

#[derive(Record)]
#[entity(generated(nickname))]
struct User {
    id: i32,
    #[diesel(embed)]
    address: Address,
}

#[derive(Record)]
#[entity(generated(address))]
struct Customer {
    id: i32,
    #[diesel(embed)]
    address: Address,
}

#[derive(Record)]
#[entity(of = User, generated(id, id))]
struct Twice {
    nickname: String,
}

#[derive(Record)]
#[entity(of = User, generated())]
struct Empty {
    nickname: String,
}

#[derive(Record)]
#[entity(of = User, generated(id))]
struct Given {
    id: i32,
    nickname: String,
}

#[derive(Record)]
struct Skipped {
    #[diesel(skip_insertion)]
    id: i32,
}

struct Address;

fn main() {}
