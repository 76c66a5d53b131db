use diesel_session::transactional;

fn main() {
    let work = #[transactional]
    || Ok::<(), diesel_session::Error>(());
    drop(work);
}
