//! How many statements work takes.

use diesel::prelude::*;

use super::models::*;
use super::recorder::is_sqlite;
use super::schema::users;
use super::tools::{Fixture, only, recorded};

/// Statements that write or read rows; BEGIN and COMMIT are not counted.
const ROWS: [&str; 5] = ["INSERT", "UPDATE", "DELETE", "SELECT", "WITH"];

#[test]
fn a_thousand_parents_with_ten_children_each_are_few_statements_and_each_child_has_its_parent() {
    let fixture = Fixture::watched();
    let session = fixture.session();
    let parents = session.add_all((0..1_000).map(|n| user(&format!("user {n}")))).unwrap();
    for (n, parent) in parents.iter().enumerate() {
        for child in 0..10 {
            session
                .add_with(parent, move |parent| NewPost {
                    user_id: parent.id,
                    parent_id: None,
                    title: format!("{n}.{child}"),
                })
                .unwrap();
        }
    }
    let ((), sent) = recorded(|| session.flush().unwrap());
    let sent = only(&sent, &ROWS).len();
    println!("{}: 11 000 rows in {sent} statements", std::any::type_name::<super::db::Conn>());
    // On SQLite a statement takes no more rows than its caches like; there are no round trips to save.
    assert!(sent <= if is_sqlite() { 60 } else { 20 }, "{sent} statements");
    session.commit().unwrap();
    let owners: std::collections::HashMap<i32, String> =
        fixture.users().into_iter().map(|user| (user.id, user.nickname)).collect();
    let posts = fixture.posts();
    assert_eq!(posts.len(), 10_000);
    for post in posts {
        let (parent, _) = post.title.split_once('.').unwrap();
        assert_eq!(owners[&post.user_id], format!("user {parent}"));
    }
}

#[test]
fn of_ten_thousand_changed_rows_only_the_changed_column_is_written() {
    let fixture = Fixture::watched();
    let session = fixture.session();
    session.bulk_insert((0..10_000).map(|n| user(&format!("user {n}"))), diesel_session::Bulk::new()).unwrap();
    let all = session.load_tracked(users::table.select(User::as_select())).unwrap();
    for user in &all {
        user.write().unwrap().balance = 5;
    }
    let ((), sent) = recorded(|| session.flush().unwrap());
    let updates = only(&sent, &["UPDATE"]);
    assert!(
        updates.iter().all(|text| text.contains("balance") && !text.contains("nickname") && !text.contains("email"))
    );
    println!("{}: 10 000 rows in {} statements", std::any::type_name::<super::db::Conn>(), updates.len());
    session.commit().unwrap();
    assert!(fixture.users().iter().all(|user| user.balance == 5 && user.version == 2));
}

#[test]
fn a_session_that_changed_nothing_sends_nothing() {
    let fixture = Fixture::watched().with_users(&["ann"]);
    let session = fixture.session();
    let ann = session.get_one::<User>(fixture.users()[0].id).unwrap();
    ann.write().unwrap().balance = 0;
    let ((), sent) = recorded(|| session.flush().unwrap());
    assert!(sent.is_empty(), "{sent:?}");
    // Changed and changed back.
    ann.write().unwrap().balance = 1;
    ann.write().unwrap().balance = 0;
    let ((), sent) = recorded(|| session.flush().unwrap());
    assert!(sent.is_empty(), "{sent:?}");
    session.commit().unwrap();
    assert_eq!(ann.read().unwrap().version, 1);
}
