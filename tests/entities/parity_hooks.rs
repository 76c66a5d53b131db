//! The session in the hooks of a flush, as SQLAlchemy's tests of flush warnings have it.

use std::cell::RefCell;
use std::rc::Rc;

use diesel::prelude::*;
use diesel_session::{Entity, EntityHooks, Error, Record, RecordHooks, Result, SessionConnection, Tracked};

use super::db::Session;
use super::models::{Country, Membership, NewPost, Post, country};
use super::parity_tools::{countries, post};
use super::schema::users;
use super::tools::Fixture;

#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Identifiable, Entity)]
#[diesel(table_name = users)]
#[entity(hooks)]
struct Hooked {
    id: i32,
    nickname: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Insertable, Record)]
#[diesel(table_name = users)]
#[entity(of = Hooked, generated(id), hooks)]
struct NewHooked {
    nickname: String,
}

type Deed = Box<dyn Fn() -> Result<()>>;

thread_local! {
    /// What the hooks do.
    static DEED: RefCell<Option<Deed>> = const { RefCell::new(None) };
    static ANSWERS: RefCell<Vec<(&'static str, Result<()>)>> = const { RefCell::new(Vec::new()) };
}

fn in_hook(hook: &'static str) -> Result<()> {
    let deed = DEED.take();
    if let Some(deed) = &deed {
        let answer = deed();
        ANSWERS.with_borrow_mut(|answers| answers.push((hook, answer)));
    }
    DEED.set(deed);
    Ok(())
}

impl<C: SessionConnection> EntityHooks<C> for Hooked {
    fn before_update(&mut self, _: &mut C) -> Result<()> {
        in_hook("before_update")
    }
    fn after_update(&self, _: &mut C) -> Result<()> {
        in_hook("after_update")
    }
    fn before_delete(&self, _: &mut C) -> Result<()> {
        in_hook("before_delete")
    }
    fn after_delete(&self, _: &mut C) -> Result<()> {
        in_hook("after_delete")
    }
}

impl<C: SessionConnection> RecordHooks<C> for NewHooked {
    fn before_insert(&mut self, _: &mut C) -> Result<()> {
        in_hook("before_insert")
    }
    fn after_insert(_: &Hooked, _: &mut C) -> Result<()> {
        in_hook("after_insert")
    }
}

/// What stands when the hooks run.
struct Scene {
    session: Session,
    germany: Tracked<Country>,
    first: Tracked<Post>,
}

type Act = fn(&Scene) -> Result<()>;

/// Runs the deed in each of the six hooks of a flush; nothing of it may be done.
#[track_caller]
fn is_refused_in_each_hook(act: Act) {
    let fixture = Fixture::new().with_users(&["parent"]);
    let parent = fixture.users()[0].id;
    fixture
        .registry
        .transaction(|session| {
            session.add(country("de", "Germany"))?;
            session.add(post(parent, "first")).map(drop)
        })
        .unwrap();
    let session = fixture.session();
    let doomed = session.insert_now(NewHooked { nickname: "doomed".into() }).unwrap();
    let changed = session.insert_now(NewHooked { nickname: "before".into() }).unwrap();
    let scene = Rc::new(Scene {
        session: session.clone(),
        germany: session.get_one("de".to_owned()).unwrap(),
        first: session.get_one(fixture_post(&session)).unwrap(),
    });
    let actor = Rc::clone(&scene);
    DEED.set(Some(Box::new(move || act(&actor))));
    session.add(NewHooked { nickname: "new".into() }).unwrap();
    changed.write().unwrap().nickname = "after".into();
    session.delete(&doomed).unwrap();
    session.flush().unwrap();
    DEED.take();
    let answers = ANSWERS.take();
    let mut hooks: Vec<_> = answers.iter().map(|(hook, _)| *hook).collect();
    hooks.sort_unstable();
    assert_eq!(
        hooks,
        ["after_delete", "after_insert", "after_update", "before_delete", "before_insert", "before_update"]
    );
    for (hook, answer) in answers {
        assert!(matches!(answer, Err(Error::Reentrant)), "{hook}: {answer:?}");
    }
    assert!(!session.has_changes());
    session.commit().unwrap();
    assert_eq!(fixture.nicknames(), ["after", "new", "parent"]);
    assert_eq!(countries(&fixture), [country("de", "Germany")]);
    let posts = fixture.posts();
    assert_eq!((posts.len(), &*posts[0].title, posts[0].user_id), (1, "first", parent));
}

fn fixture_post(session: &Session) -> i32 {
    use super::schema::posts;
    session.first(posts::table.select(posts::id)).unwrap()
}

// parity: FlushWarningsTest::test_plain_add
#[test]
fn a_hook_can_not_add() {
    is_refused_in_each_hook(|scene| scene.session.add(country("at", "Austria")).map(drop));
}

// parity: FlushWarningsTest::test_plain_merge
#[test]
fn a_hook_can_not_merge() {
    is_refused_in_each_hook(|scene| scene.session.merge(country("de", "Deutschland")).map(drop));
    is_refused_in_each_hook(|scene| scene.session.merge_all([country("at", "Austria")]).map(drop));
    is_refused_in_each_hook(|scene| {
        let membership = Membership { user_id: 1, group_id: 1, role: "member".into() };
        scene.session.merge_existing(membership).map(drop)
    });
}

// parity: FlushWarningsTest::test_o2m_cascade_add
#[test]
fn a_hook_can_not_add_a_child() {
    is_refused_in_each_hook(|scene| {
        let reply = |first: &Post| NewPost { parent_id: Some(first.id), ..post(first.user_id, "reply") };
        scene.session.add_with(&scene.first, reply).map(drop)
    });
}

// parity: FlushWarningsTest::test_o2m_cascade_remove
#[test]
fn a_hook_can_not_delete_a_child() {
    is_refused_in_each_hook(|scene| scene.session.delete(&scene.first));
}

// parity: FlushWarningsTest::test_m2o_cascade_add
#[test]
fn a_hook_can_not_point_a_child_at_another_parent() {
    is_refused_in_each_hook(|scene| scene.first.update(|first| first.user_id += 1));
}

// parity: FlushWarningsTest::test_m2o_cascade_remove
#[test]
fn a_hook_can_not_delete_or_forget_what_others_refer_to() {
    is_refused_in_each_hook(|scene| scene.session.delete(&scene.germany));
    is_refused_in_each_hook(|scene| scene.session.expunge(&scene.germany));
}
