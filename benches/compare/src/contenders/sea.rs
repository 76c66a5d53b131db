//! SeaORM on tokio with two workers: a model at a time as its guide has it, and `insert_many`.

use std::rc::Rc;

use sea_orm::ActiveValue::Set;
use sea_orm::{ActiveModelTrait, Database, DatabaseConnection, DbErr, EntityTrait, IntoActiveModel, TransactionTrait};
use tokio::runtime::{Builder, Runtime};

use super::{INSERT_GIVES_KEYS, Settings};
use crate::work::{Draft, Fallible, Family, Outcome, Task, Way, Work};

const NAME: &str = "SeaORM";
const MANY: &str = "SeaORM insert_many";
const CHUNK: usize = 1_000;
/// A model at a time is slow enough to be shown on less.
const SHARE: usize = 10;

mod people {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "people")]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i32,
        pub name: String,
        pub email: String,
        pub city: String,
        pub born: i32,
        pub visits: i32,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

mod notes {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "notes")]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i32,
        pub title: String,
        pub body: String,
        pub stars: i32,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

mod parents {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "parents")]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i32,
        pub name: String,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

mod children {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "children")]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i32,
        pub parent_id: i32,
        pub name: String,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

struct Sea {
    runtime: Runtime,
    /// `None` once it is being closed.
    db: Option<DatabaseConnection>,
}

impl Drop for Sea {
    fn drop(&mut self) {
        if let Some(db) = self.db.take() {
            _ = self.runtime.block_on(db.close());
        }
    }
}

impl Sea {
    fn db(&self) -> Fallible<&DatabaseConnection> {
        self.db.as_ref().ok_or_else(|| "closed".into())
    }
}

fn gone(key: i32) -> DbErr {
    DbErr::RecordNotFound(format!("person {key}"))
}

async fn request(db: &DatabaseConnection, key: i32) -> Result<i32, DbErr> {
    let transaction = db.begin().await?;
    let person = people::Entity::find_by_id(key).one(&transaction).await?.ok_or_else(|| gone(key))?;
    let before = person.visits;
    let mut person = person.into_active_model();
    person.visits = Set(before + 1);
    person.update(&transaction).await?;
    transaction.commit().await?;
    Ok(before)
}

async fn read(db: &DatabaseConnection, key: i32) -> Result<i32, DbErr> {
    let transaction = db.begin().await?;
    let person = people::Entity::find_by_id(key).one(&transaction).await?.ok_or_else(|| gone(key))?;
    transaction.commit().await?;
    Ok(person.visits)
}

fn note(draft: Draft) -> notes::ActiveModel {
    notes::ActiveModel { title: Set(draft.title), body: Set(draft.body), stars: Set(draft.stars), ..Default::default() }
}

async fn insert(db: &DatabaseConnection, drafts: Vec<Draft>) -> Result<Vec<i32>, DbErr> {
    let transaction = db.begin().await?;
    let mut keys = Vec::with_capacity(drafts.len());
    for draft in drafts {
        keys.push(note(draft).insert(&transaction).await?.id);
    }
    transaction.commit().await?;
    Ok(keys)
}

/// The keys where the database gives them back; elsewhere SeaORM knows one only.
async fn insert_many(db: &DatabaseConnection, drafts: Vec<Draft>) -> Result<Option<Vec<i32>>, DbErr> {
    let transaction = db.begin().await?;
    let mut keys = Vec::with_capacity(drafts.len());
    let mut drafts = drafts.into_iter().map(note).peekable();
    while drafts.peek().is_some() {
        let insert = notes::Entity::insert_many(drafts.by_ref().take(CHUNK));
        if INSERT_GIVES_KEYS {
            keys.extend(insert.exec_with_returning_keys(&transaction).await?);
        } else {
            insert.exec_without_returning(&transaction).await?;
        }
    }
    transaction.commit().await?;
    Ok(INSERT_GIVES_KEYS.then_some(keys))
}

async fn change(db: &DatabaseConnection) -> Result<(), DbErr> {
    let transaction = db.begin().await?;
    for person in people::Entity::find().all(&transaction).await? {
        let visits = person.visits + 1;
        let mut person = person.into_active_model();
        person.visits = Set(visits);
        person.update(&transaction).await?;
    }
    transaction.commit().await
}

async fn families(db: &DatabaseConnection, families: Vec<Family>) -> Result<(Vec<i32>, Vec<i32>), DbErr> {
    let transaction = db.begin().await?;
    let (mut above, mut below) = (Vec::new(), Vec::new());
    for family in families {
        let parent = parents::ActiveModel { name: Set(family.name), ..Default::default() };
        let parent = parent.insert(&transaction).await?.id;
        for name in family.children {
            let child = children::ActiveModel { parent_id: Set(parent), name: Set(name), ..Default::default() };
            below.push(child.insert(&transaction).await?.id);
        }
        above.push(parent);
    }
    transaction.commit().await?;
    Ok((above, below))
}

pub fn ways(url: &str, settings: Settings) -> Fallible<Vec<Way>> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut options = settings.sea(url);
    options.max_connections(4).sqlx_logging(false);
    let db = runtime.block_on(Database::connect(options))?;
    let sea = Rc::new(Sea { runtime, db: Some(db) });
    let with = || Rc::clone(&sea);
    let (first, full, reading, one, many, changing, growing) = (with(), with(), with(), with(), with(), with(), with());
    let many = move |task| -> Fallible<Outcome> {
        let Task::Insert(drafts) = task else { return Err("not a list of rows".into()) };
        let keys = many.runtime.block_on(insert_many(many.db()?, drafts))?;
        Ok(keys.map_or(Outcome::Nothing, Outcome::Keys))
    };
    Ok(vec![
        Way::request(NAME, Work::W1, move |key| Ok(first.runtime.block_on(request(first.db()?, key))?)).share(SHARE),
        Way::request(NAME, Work::W1Full, move |key| Ok(full.runtime.block_on(request(full.db()?, key))?)).share(SHARE),
        Way::request(NAME, Work::W2, move |key| Ok(reading.runtime.block_on(read(reading.db()?, key))?)).share(SHARE),
        Way::insert(NAME, move |drafts| Ok(one.runtime.block_on(insert(one.db()?, drafts))?)).share(SHARE),
        Way::new(MANY, Work::W3, many),
        Way::change(NAME, move || Ok(changing.runtime.block_on(change(changing.db()?))?)),
        Way::families(NAME, move |all| Ok(growing.runtime.block_on(families(growing.db()?, all))?)).share(SHARE),
    ])
}
