//! The entities of those tables.
#![allow(dead_code)]

use diesel::backend::Backend;
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::prelude::*;
use diesel::serialize::{self, Output, ToSql};
use diesel::sql_types::Text;
use diesel_session::{Entity, EntityHooks, Record, SessionConnection};

use crate::shape_tables::*;

/// An entity with a key that the database makes, and its record.
macro_rules! generated {
    ($entity:ident, $new:ident, $table:ident $(, $parent:ident by $key:ident)?; $($field:ident: $type:ty),*) => {
        #[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Identifiable, Entity)]
        #[diesel(table_name = $table)]
        $(#[derive(Associations)] #[diesel(belongs_to($parent, foreign_key = $key))])?
        pub struct $entity {
            pub id: i32,
            $(pub $field: $type,)*
        }

        #[derive(Debug, Clone, PartialEq, Eq, Insertable, Record)]
        #[diesel(table_name = $table)]
        #[entity(of = $entity, generated(id))]
        pub struct $new {
            $(pub $field: $type,)*
        }
    };
}

/// An entity with a key of the program's making: its own record.
macro_rules! natural {
    ($entity:ident, $table:ident ($($id:ident),+) $(, $parent:ident by $key:ident)?; $($field:ident: $type:ty),*) => {
        #[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Identifiable, Insertable, Entity, Record)]
        #[diesel(table_name = $table, primary_key($($id),+))]
        $(#[derive(Associations)] #[diesel(belongs_to($parent, foreign_key = $key))])?
        pub struct $entity {
            $(pub $field: $type,)*
        }
    };
}

generated!(Node, NewNode, nodes, Node by parent_id; parent_id: Option<i32>, name: String);
generated!(Album, NewAlbum, albums; title: String);
generated!(Track, NewTrack, tracks, Album by album_id; album_id: i32, title: String);
natural!(Person, people (username); username: String, fullname: String);
generated!(Letter, NewLetter, letters, Person by username; username: Option<String>, body: String);
natural!(Mailbox, mailboxes (username, email), Person by username; username: String, email: String, note: String);
natural!(Home, homes (name); name: String, city: String);
natural!(Pet, pets (name), Home by home; name: String, home: Option<String>);
natural!(Drawer, drawers (home, label), Home by home; home: String, label: String, note: String);
generated!(Badge, NewBadge, badges; code: String);
natural!(Employee, staff (name), Employee by boss; name: String, boss: Option<String>);
natural!(Sailor, crew (name), Sailor by boss; name: String, boss: Option<String>);
natural!(Slot, slots (code, status); code: i32, status: i32, title: String);
generated!(Blob, NewBlob, blobs; data: Option<Vec<u8>>);
generated!(Unite, NewUnite, unite, Unite by under; meil: String, under: Option<i32>);
natural!(Keyless, keyless (id); id: i32, text: String);

/// Of two rows of one table.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Identifiable, Insertable, Entity, Record)]
#[diesel(table_name = node_links, primary_key(one_id, other_id))]
#[entity(depends_on(Node))]
pub struct NodeLink {
    pub one_id: i32,
    pub other_id: i32,
}

#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Identifiable, Insertable, Entity, Record)]
#[diesel(table_name = friendships, primary_key(one, other))]
#[entity(depends_on(Person))]
pub struct Friendship {
    pub one: String,
    pub other: String,
}

/// Refers to a badge by what is not its primary key.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Identifiable, Entity)]
#[diesel(table_name = scans)]
#[entity(depends_on(Badge))]
pub struct Scan {
    pub id: i32,
    pub code: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Insertable, Record)]
#[diesel(table_name = scans)]
#[entity(of = Scan, generated(id))]
pub struct NewScan {
    pub code: String,
}

/// The same, of which the database knows nothing.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Identifiable, Entity)]
#[diesel(table_name = stamps)]
#[entity(depends_on(Badge))]
pub struct Stamp {
    pub id: i32,
    pub code: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Insertable, Record)]
#[diesel(table_name = stamps)]
#[entity(of = Stamp, generated(id))]
pub struct NewStamp {
    pub code: String,
}

/// A track whose entity says nothing of its album.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Identifiable, Entity)]
#[diesel(table_name = tracks)]
pub struct LooseTrack {
    pub id: i32,
    pub album_id: i32,
    pub title: String,
}

/// Its own record too, which gives every column.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Identifiable, Insertable, Entity, Record)]
#[diesel(table_name = gadgets)]
pub struct Gadget {
    pub id: i32,
    pub label: String,
    pub status: Option<String>,
    pub size: i32,
    pub note: Option<String>,
    pub is_on: bool,
}

/// Leaves the defaults to the database.
#[derive(Debug, Clone, PartialEq, Eq, Insertable, Record)]
#[diesel(table_name = gadgets)]
#[entity(of = Gadget, generated(id, status, size))]
pub struct NewGadget {
    pub label: String,
    pub note: Option<String>,
    pub is_on: bool,
}

/// Gives the size, or leaves it to the database.
#[derive(Debug, Clone, PartialEq, Eq, Insertable, Record)]
#[diesel(table_name = gadgets)]
#[entity(of = Gadget, generated(id, status, size))]
pub struct SizedGadget {
    pub label: String,
    pub size: Option<i32>,
    pub note: Option<String>,
    pub is_on: bool,
}

/// Gives everything but the key.
#[derive(Debug, Clone, PartialEq, Eq, Insertable, Record)]
#[diesel(table_name = gadgets)]
#[entity(of = Gadget, generated(id))]
pub struct FullGadget {
    pub label: String,
    pub status: Option<String>,
    pub size: i32,
    pub note: Option<String>,
    pub is_on: bool,
}

/// Gives the key too.
#[derive(Debug, Clone, PartialEq, Eq, Insertable, Record)]
#[diesel(table_name = gadgets)]
#[entity(of = Gadget, generated(status, size))]
pub struct KeyedGadget {
    pub id: i32,
    pub label: String,
    pub note: Option<String>,
    pub is_on: bool,
}

pub fn gadget(label: &str) -> NewGadget {
    NewGadget { label: label.into(), note: None, is_on: false }
}

pub fn full_gadget(label: &str, status: Option<&str>) -> FullGadget {
    FullGadget { label: label.into(), status: status.map(Into::into), size: 1, note: None, is_on: false }
}

#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Identifiable, Entity)]
#[diesel(table_name = settings, primary_key(code))]
pub struct Setting {
    pub code: String,
    pub value: i32,
}

#[derive(Debug, Clone, PartialEq, Eq, Insertable, Record)]
#[diesel(table_name = settings)]
#[entity(of = Setting, generated(value))]
pub struct NewSetting {
    pub code: String,
}

/// Versioned, with a key of the program's making.
#[derive(
    Debug, Clone, PartialEq, Eq, Queryable, Selectable, Identifiable, Associations, Insertable, Entity, Record,
)]
#[diesel(table_name = docs, belongs_to(Doc, foreign_key = parent_id))]
pub struct Doc {
    pub id: i32,
    pub parent_id: Option<i32>,
    pub title: String,
    #[entity(version)]
    pub version: i32,
}

pub fn doc(id: i32, title: &str) -> Doc {
    Doc { id, parent_id: None, title: title.into(), version: 1 }
}

/// The same table for a program that counts the versions itself.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Identifiable, Insertable, Entity, Record)]
#[diesel(table_name = docs)]
pub struct ManualDoc {
    pub id: i32,
    pub parent_id: Option<i32>,
    pub title: String,
    pub version: i32,
}

/// A ring of two tables: a player has a favourite ball, a ball has an owner.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Identifiable, Associations, Entity)]
#[diesel(table_name = players, belongs_to(Ball, foreign_key = favourite_id))]
pub struct Player {
    pub id: i32,
    pub favourite_id: Option<i32>,
    pub name: String,
    #[entity(version)]
    pub version: i32,
}

#[derive(Debug, Clone, PartialEq, Eq, Insertable, Record)]
#[diesel(table_name = players)]
#[entity(of = Player, generated(id, version))]
pub struct NewPlayer {
    pub favourite_id: Option<i32>,
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Identifiable, Associations, Entity)]
#[diesel(table_name = balls, belongs_to(Player, foreign_key = owner_id))]
pub struct Ball {
    pub id: i32,
    pub owner_id: Option<i32>,
    pub colour: String,
    #[entity(version)]
    pub version: i32,
}

#[derive(Debug, Clone, PartialEq, Eq, Insertable, Record)]
#[diesel(table_name = balls)]
#[entity(of = Ball, generated(id, version))]
pub struct NewBall {
    pub owner_id: Option<i32>,
    pub colour: String,
}

/// Sorted from light to dark, stored as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, AsExpression, FromSqlRow)]
#[diesel(sql_type = Text)]
pub enum Tone {
    White,
    Grey,
    Black,
}

impl<DB: Backend> ToSql<Text, DB> for Tone
where
    str: ToSql<Text, DB>,
{
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, DB>) -> serialize::Result {
        let text: &'static str = match self {
            Self::White => "white",
            Self::Grey => "grey",
            Self::Black => "black",
        };
        text.to_sql(out)
    }
}

impl<DB: Backend> FromSql<Text, DB> for Tone
where
    String: FromSql<Text, DB>,
{
    fn from_sql(bytes: DB::RawValue<'_>) -> deserialize::Result<Self> {
        match String::from_sql(bytes)?.as_str() {
            "white" => Ok(Self::White),
            "grey" => Ok(Self::Grey),
            "black" => Ok(Self::Black),
            other => Err(format!("no tone: {other}").into()),
        }
    }
}

/// JSON text: its `null` is not SQL's NULL.
#[derive(Debug, Clone, PartialEq, AsExpression, FromSqlRow)]
#[diesel(sql_type = Text)]
pub struct Json(pub serde_json::Value);

/// Each backend buffers in its own way.
macro_rules! json_to_sql {
    ($backend:ty, |$text:ident, $out:ident| $write:expr) => {
        impl ToSql<Text, $backend> for Json {
            fn to_sql<'b>(&'b self, $out: &mut Output<'b, '_, $backend>) -> serialize::Result {
                let $text = self.0.to_string();
                $write
            }
        }
    };
}

#[cfg(feature = "sqlite")]
json_to_sql!(diesel::sqlite::Sqlite, |text, out| {
    out.set_value(text);
    Ok(serialize::IsNull::No)
});
#[cfg(feature = "postgres")]
json_to_sql!(diesel::pg::Pg, |text, out| <str as ToSql<Text, diesel::pg::Pg>>::to_sql(&text, &mut out.reborrow()));
#[cfg(feature = "mysql")]
json_to_sql!(diesel::mysql::Mysql, |text, out| <str as ToSql<Text, diesel::mysql::Mysql>>::to_sql(
    &text,
    &mut out.reborrow()
));

impl<DB: Backend> FromSql<Text, DB> for Json
where
    String: FromSql<Text, DB>,
{
    fn from_sql(bytes: DB::RawValue<'_>) -> deserialize::Result<Self> {
        Ok(Self(serde_json::from_str(&String::from_sql(bytes)?)?))
    }
}

#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Insertable, Entity, Record)]
#[diesel(table_name = shades, primary_key(shade))]
pub struct Shade {
    pub shade: Tone,
    pub note: Option<Json>,
    pub other: Option<Json>,
}

natural!(Partial, partials (a, b); a: i32, b: Option<i32>, note: String);

/// Leaves the code to the database, or gives it.
#[derive(Debug, Clone, PartialEq, Eq, Insertable, Record)]
#[diesel(table_name = badges)]
#[entity(of = Badge, generated(id, code))]
pub struct AnyBadge {
    pub code: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Identifiable, Entity)]
#[diesel(table_name = prices)]
pub struct Price {
    pub id: i32,
    pub net: i32,
    pub gross: Option<i32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Insertable, Record)]
#[diesel(table_name = prices)]
#[entity(of = Price, generated(id, gross))]
pub struct NewPrice {
    pub net: i32,
}

/// Its fields have names of their own.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Identifiable, Insertable, Entity, Record)]
#[diesel(table_name = slots, primary_key(code, status))]
pub struct Aliased {
    #[diesel(column_name = code)]
    pub kind: i32,
    #[diesel(column_name = status)]
    pub phase: i32,
    pub title: String,
}

/// Notes each update.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Identifiable, Entity)]
#[diesel(table_name = gadgets)]
#[entity(hooks)]
pub struct Noted {
    pub id: i32,
    pub label: String,
    pub note: Option<String>,
}

impl<C: SessionConnection> EntityHooks<C> for Noted {
    fn before_update(&mut self, _: &mut C) -> diesel_session::Result<()> {
        self.note = Some("updated".into());
        Ok(())
    }
}

generated!(Ticket, NewTicket, tickets; text: String);

#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Identifiable, Entity)]
#[diesel(table_name = tokens, primary_key(token))]
pub struct Token {
    pub token: String,
    pub note: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Insertable, Record)]
#[diesel(table_name = tokens)]
#[entity(of = Token, generated(token))]
pub struct NewToken {
    pub note: String,
}

/// Versioned, with a key of a type of the program's.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Identifiable, Insertable, Entity, Record)]
#[diesel(table_name = tones, primary_key(tone))]
pub struct ToneDoc {
    pub tone: Tone,
    pub note: String,
    #[entity(version)]
    pub version: i32,
}

#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Identifiable, Entity)]
#[diesel(table_name = whole_partials, primary_key(a))]
pub struct WholePartial {
    pub a: i32,
    #[entity(version)]
    pub b: i32,
    pub note: String,
}
