//! The derives get along with what stands around them: names that user code takes, strict lints, other databases' models.
#![cfg(feature = "sqlite")]

/// Names that the prelude has, too.
mod shadowed {
    #![deny(missing_docs, unused, unreachable_pub, missing_debug_implementations)]

    use diesel::prelude::{Identifiable, Insertable, Queryable, Selectable};

    #[allow(dead_code)]
    mod shadows {
        pub(crate) struct Some;
        pub(crate) struct None;
        pub(crate) struct Option;
        pub(crate) struct Result;
        pub(crate) struct Vec;
        pub(crate) struct String;
        pub(crate) struct From;
        pub(crate) struct Into;
        pub(crate) struct Default;
    }
    #[allow(unused_imports)]
    use shadows::*;

    diesel::table! { users (id) { id -> Integer, nickname -> Text, email -> Nullable<Text>, version -> Integer, } }

    #[derive(Clone, Debug, Queryable, Selectable, Identifiable, diesel_session::Entity)]
    pub(crate) struct User {
        id: i32,
        nickname: std::string::String,
        email: std::option::Option<std::string::String>,
        #[entity(version)]
        version: i32,
    }

    #[derive(Debug, Insertable, diesel_session::Record)]
    #[diesel(table_name = users)]
    #[entity(of = User, generated(id, version))]
    pub(crate) struct NewUser {
        pub(crate) id: std::option::Option<i32>,
        pub(crate) nickname: std::string::String,
        pub(crate) email: std::option::Option<std::string::String>,
    }
}

#[test]
fn a_record_whose_key_may_be_given_knows_it_where_it_is() {
    let record = |id| shadowed::NewUser { id, nickname: "ann".into(), email: None };
    assert_eq!(diesel_session::Record::given_key(&record(Some(3))), Some(3));
    assert_eq!(diesel_session::Record::given_key(&record(None)), None);
}

/// What only PostgreSQL can store, where SQLite may be on too.
#[cfg(feature = "postgres")]
mod servers_only {
    use diesel::prelude::*;
    use diesel_session::{Entity, Insert, Persist, Record};

    diesel::table! { documents (id) { id -> Integer, words -> Array<Text>, } }

    #[derive(Debug, Clone, Queryable, Selectable, Identifiable, Insertable, Entity, Record)]
    #[entity(backends(postgres))]
    pub(crate) struct Document {
        id: i32,
        words: Vec<String>,
    }

    #[derive(Debug, Clone, Queryable, Selectable, Identifiable, Entity)]
    #[diesel(table_name = documents, check_for_backend(diesel::pg::Pg))]
    struct Checked {
        id: i32,
        words: Vec<String>,
    }

    #[derive(Debug, Clone, Insertable, Record)]
    #[diesel(table_name = documents, check_for_backend(diesel::pg::Pg))]
    #[entity(of = Checked)]
    struct NewChecked {
        words: Vec<String>,
    }

    fn stores<C: Insert<Document> + Persist<Document> + Insert<NewChecked> + Persist<Checked>>() {}

    #[test]
    fn a_model_of_one_database_stands_beside_the_others() {
        stores::<PgConnection>();
    }
}
