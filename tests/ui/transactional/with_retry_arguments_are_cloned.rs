use diesel_session::{Result, transactional};

struct Token(String);

fn spend(token: Token) -> Result<()> {
    drop(token.0);
    Ok(())
}

#[transactional(retry = 3)]
fn by_name(count: u32, token: Token) -> Result<()> {
    let _ = count;
    spend(token)
}

#[transactional(retry = 3)]
fn by_pattern((token, _): (Token, u32)) -> Result<()> {
    spend(token)
}

#[transactional(retry = 3)]
fn by_trait(make: impl FnOnce() -> Token) -> Result<()> {
    spend(make())
}

impl Token {
    #[transactional(retry = 3)]
    fn use_up(self) -> Result<()> {
        spend(self)
    }
}

fn main() {}
