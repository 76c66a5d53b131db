//! Types that only PostgreSQL has.

use diesel::connection::SimpleConnection;
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::pg::{Pg, PgValue};
use diesel::prelude::*;
use diesel::serialize::{self, Output, ToSql, WriteTuple};
use diesel::sql_types::{Integer, Record as Composite, SqlType};
use diesel_session::entity::sql;
use diesel_session::{Change, ColumnSet, Entity, Record};

use super::db::Conn;
use super::models::connect;

#[derive(Debug, SqlType)]
#[diesel(postgres_type(name = "place"))]
pub struct PlaceType;

diesel::table! {
    use diesel::sql_types::Integer;
    use super::PlaceType;
    stones (id) { id -> Integer, place -> PlaceType, }
}

#[derive(Debug, Clone, Copy, PartialEq, AsExpression, FromSqlRow)]
#[diesel(sql_type = PlaceType)]
struct Place(i32, i32);

impl ToSql<PlaceType, Pg> for Place {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        WriteTuple::<(Integer, Integer)>::write_tuple(&(self.0, self.1), out)
    }
}

impl FromSql<PlaceType, Pg> for Place {
    fn from_sql(bytes: PgValue<'_>) -> deserialize::Result<Self> {
        let (x, y) = FromSql::<Composite<(Integer, Integer)>, Pg>::from_sql(bytes)?;
        Ok(Self(x, y))
    }
}

#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Entity)]
#[diesel(table_name = stones, check_for_backend(Pg))]
struct Stone {
    id: i32,
    place: Place,
}

#[derive(Insertable, Record)]
#[diesel(table_name = stones, check_for_backend(Pg))]
#[entity(of = Stone, generated(id))]
struct NewStone {
    place: Place,
}

/// `unnest` would make a column of each part.
#[test]
fn composites_come_through_many_rows() {
    let (_database, mut conn) = connect();
    conn.batch_execute(
        "CREATE TYPE place AS (x INTEGER, y INTEGER); CREATE TABLE stones (id SERIAL PRIMARY KEY, place place NOT NULL)",
    )
    .unwrap();
    conn.begin_test_transaction().unwrap();
    let new: Vec<_> = (0..50).map(|i| NewStone { place: Place(i, -i) }).collect();
    let refs: Vec<_> = new.iter().collect();
    let made = sql::insert::<Conn, NewStone>(&mut conn, &refs).unwrap();
    let all = stones::table.order(stones::id).select(Stone::as_select());
    let old = all.load(&mut conn).unwrap();
    let expected: Vec<_> = made.into_iter().zip(&new).map(|((id,), new)| Stone { id, place: new.place }).collect();
    assert_eq!(old, expected);
    let new: Vec<_> = old.iter().map(|stone| Stone { place: Place(7, stone.id), ..stone.clone() }).collect();
    let rows: Vec<_> = old.iter().zip(&new).map(|(old, new)| Change { old, new }).collect();
    assert_eq!(sql::update::<Conn, Stone>(&mut conn, &rows, ColumnSet::of(1)).unwrap(), 50);
    assert_eq!(all.load(&mut conn).unwrap(), new);
}
