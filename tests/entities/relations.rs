//! Rows of other tables that belong to many entities.

use super::models::*;
use super::tools::{Fixture, only, recorded};

fn with_groups() -> Fixture {
    let fixture = Fixture::watched();
    let session = fixture.session();
    let users = session.add_all(["ann", "bob", "eve"].map(user)).unwrap();
    for (n, who) in users.iter().enumerate().take(2) {
        for title in 0..=n {
            session
                .add_with(who, move |who| NewPost { user_id: who.id, parent_id: None, title: format!("{title}") })
                .unwrap();
        }
    }
    let group = session.add_with(&users[0], |ann| NewGroup { name: "all".into(), owner_id: Some(ann.id) }).unwrap();
    let empty = session.add(NewGroup { name: "nobody's".into(), owner_id: None }).unwrap();
    for who in &users {
        session
            .add_with((who, &group), |(who, group)| Membership {
                user_id: who.id,
                group_id: group.id,
                role: "member".into(),
            })
            .unwrap();
    }
    session.commit().unwrap();
    drop(empty);
    fixture
}

#[test]
fn children_of_many_parents_are_one_query() {
    let fixture = with_groups();
    let session = fixture.session();
    let ids: Vec<i32> = fixture.users().iter().map(|user| user.id).collect();
    let users = session.get_many::<User, _>(ids).unwrap();
    let (posts, sent) = recorded(|| session.related::<Post, _>(&users).unwrap());
    assert_eq!(posts.iter().map(Vec::len).collect::<Vec<_>>(), [1, 2, 0]);
    assert_eq!(only(&sent, &["SELECT"]).len(), 1, "{sent:?}");
    let all: Vec<_> = posts.into_iter().flatten().collect();
    let (parents, sent) = recorded(|| session.parents::<User, _>(&all).unwrap());
    assert_eq!(sent.len(), 0);
    assert_eq!(parents, [Some(users[0].clone()), Some(users[1].clone()), Some(users[1].clone())]);
}

#[test]
fn many_to_many_is_two_queries() {
    let fixture = with_groups();
    let session = fixture.session();
    let ids: Vec<i32> = fixture.users().iter().map(|user| user.id).collect();
    let users = session.get_many::<User, _>(ids).unwrap();
    let (groups, sent) = recorded(|| session.related_through::<Group, Membership, _>(&users).unwrap());
    assert_eq!(only(&sent, &["SELECT"]).len(), 2);
    assert!(groups.iter().all(|groups| groups.len() == 1 && groups[0] == groups[0]));
    let group = groups[0][0].clone();
    let owner = session.parents::<User, _>(std::slice::from_ref(&group)).unwrap();
    assert_eq!(owner, [Some(users[0].clone())]);
    let members = session.related_through::<User, Membership, _>(&[group]).unwrap();
    assert_eq!(members[0].len(), 3);
}

#[test]
fn a_child_without_a_parent_has_none() {
    let fixture = with_groups();
    let session = fixture.session();
    let lonely = session.add(NewGroup { name: "x".into(), owner_id: None }).unwrap();
    assert_eq!(session.parents::<User, _>(&[lonely]).unwrap(), [None]);
}
