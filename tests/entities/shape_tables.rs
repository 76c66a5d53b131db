//! Tables of every shape that a unit of work meets: trees, rings, natural keys, cascades, defaults, versions.

diesel::table! {
    nodes (id) {
        id -> Integer,
        parent_id -> Nullable<Integer>,
        name -> Text,
    }
}

diesel::table! {
    node_links (one_id, other_id) {
        one_id -> Integer,
        other_id -> Integer,
    }
}

diesel::table! {
    albums (id) {
        id -> Integer,
        title -> Text,
    }
}

diesel::table! {
    tracks (id) {
        id -> Integer,
        album_id -> Integer,
        title -> Text,
    }
}

diesel::table! {
    people (username) {
        username -> Text,
        fullname -> Text,
    }
}

diesel::table! {
    letters (id) {
        id -> Integer,
        username -> Nullable<Text>,
        body -> Text,
    }
}

diesel::table! {
    mailboxes (username, email) {
        username -> Text,
        email -> Text,
        note -> Text,
    }
}

diesel::table! {
    friendships (one, other) {
        one -> Text,
        other -> Text,
    }
}

diesel::table! {
    homes (name) {
        name -> Text,
        city -> Text,
    }
}

diesel::table! {
    pets (name) {
        name -> Text,
        home -> Nullable<Text>,
    }
}

diesel::table! {
    drawers (home, label) {
        home -> Text,
        label -> Text,
        note -> Text,
    }
}

diesel::table! {
    badges (id) {
        id -> Integer,
        code -> Text,
    }
}

diesel::table! {
    scans (id) {
        id -> Integer,
        code -> Text,
    }
}

diesel::table! {
    stamps (id) {
        id -> Integer,
        code -> Text,
    }
}

diesel::table! {
    staff (name) {
        name -> Text,
        boss -> Nullable<Text>,
    }
}

diesel::table! {
    crew (name) {
        name -> Text,
        boss -> Nullable<Text>,
    }
}

diesel::table! {
    slots (code, status) {
        code -> Integer,
        status -> Integer,
        title -> Text,
    }
}

diesel::table! {
    gadgets (id) {
        id -> Integer,
        label -> Text,
        status -> Nullable<Text>,
        size -> Integer,
        note -> Nullable<Text>,
        is_on -> Bool,
    }
}

diesel::table! {
    settings (code) {
        code -> Text,
        value -> Integer,
    }
}

diesel::table! {
    docs (id) {
        id -> Integer,
        parent_id -> Nullable<Integer>,
        title -> Text,
        version -> Integer,
    }
}

diesel::table! {
    balls (id) {
        id -> Integer,
        owner_id -> Nullable<Integer>,
        colour -> Text,
        version -> Integer,
    }
}

diesel::table! {
    players (id) {
        id -> Integer,
        favourite_id -> Nullable<Integer>,
        name -> Text,
        version -> Integer,
    }
}

diesel::table! {
    shades (shade) {
        shade -> Text,
        note -> Nullable<Text>,
        other -> Nullable<Text>,
    }
}

diesel::table! {
    blobs (id) {
        id -> Integer,
        data -> Nullable<Binary>,
    }
}

diesel::table! {
    #[sql_name = "unitéble"]
    unite (id) {
        id -> Integer,
        #[sql_name = "méil"]
        meil -> Text,
        #[sql_name = "ünder"]
        under -> Nullable<Integer>,
    }
}

diesel::table! {
    /// A part of the key may be NULL.
    partials (a, b) {
        a -> Integer,
        b -> Nullable<Integer>,
        note -> Text,
    }
}

diesel::table! {
    /// The database keeps `gross`.
    prices (id) {
        id -> Integer,
        net -> Integer,
        gross -> Nullable<Integer>,
    }
}

diesel::table! {
    /// The database counts, and has no primary key where it can do without.
    tickets (id) {
        id -> Integer,
        text -> Text,
    }
}

diesel::table! {
    /// Has no primary key in the database, and a default for what the program takes as one.
    tokens (token) {
        token -> Text,
        note -> Text,
    }
}

diesel::table! {
    tones (tone) {
        tone -> Text,
        note -> Text,
        version -> Integer,
    }
}

diesel::table! {
    /// The same as `partials`, of which the program says that `b` is never NULL.
    #[sql_name = "partials"]
    whole_partials (a) {
        a -> Integer,
        b -> Integer,
        note -> Text,
    }
}

diesel::table! {
    /// Has no primary key in the database.
    keyless (id) {
        id -> Integer,
        text -> Text,
    }
}

const TABLES: &str = "
CREATE TABLE nodes (id {ID}, parent_id INTEGER, name VARCHAR(100) NOT NULL, FOREIGN KEY (parent_id) REFERENCES nodes (id));
CREATE TABLE node_links (one_id INTEGER NOT NULL, other_id INTEGER NOT NULL, PRIMARY KEY (one_id, other_id), FOREIGN KEY (one_id) REFERENCES nodes (id), FOREIGN KEY (other_id) REFERENCES nodes (id));
CREATE TABLE albums (id {ID}, title VARCHAR(100) NOT NULL);
CREATE TABLE tracks (id {ID}, album_id INTEGER NOT NULL, title VARCHAR(100) NOT NULL, FOREIGN KEY (album_id) REFERENCES albums (id) ON DELETE CASCADE);
CREATE TABLE people (username VARCHAR(50) PRIMARY KEY NOT NULL, fullname VARCHAR(100) NOT NULL);
CREATE TABLE letters (id {ID}, username VARCHAR(50), body VARCHAR(100) NOT NULL, FOREIGN KEY (username) REFERENCES people (username) ON UPDATE CASCADE);
CREATE TABLE mailboxes (username VARCHAR(50) NOT NULL, email VARCHAR(50) NOT NULL, note VARCHAR(100) NOT NULL, PRIMARY KEY (username, email), FOREIGN KEY (username) REFERENCES people (username) ON UPDATE CASCADE);
CREATE TABLE friendships (one VARCHAR(50) NOT NULL, other VARCHAR(50) NOT NULL, PRIMARY KEY (one, other), FOREIGN KEY (one) REFERENCES people (username) ON UPDATE CASCADE, FOREIGN KEY (other) REFERENCES people (username) ON UPDATE CASCADE);
CREATE TABLE homes (name VARCHAR(50) PRIMARY KEY NOT NULL, city VARCHAR(50) NOT NULL);
CREATE TABLE pets (name VARCHAR(50) PRIMARY KEY NOT NULL, home VARCHAR(50));
CREATE TABLE drawers (home VARCHAR(50) NOT NULL, label VARCHAR(50) NOT NULL, note VARCHAR(100) NOT NULL, PRIMARY KEY (home, label));
CREATE TABLE badges (id {ID}, code VARCHAR(50) NOT NULL UNIQUE DEFAULT 'first');
CREATE TABLE scans (id {ID}, code VARCHAR(50) NOT NULL, FOREIGN KEY (code) REFERENCES badges (code) ON UPDATE CASCADE);
CREATE TABLE stamps (id {ID}, code VARCHAR(50) NOT NULL);
CREATE TABLE staff (name VARCHAR(50) PRIMARY KEY NOT NULL, boss VARCHAR(50), FOREIGN KEY (boss) REFERENCES staff (name) ON UPDATE CASCADE);
CREATE TABLE crew (name VARCHAR(50) PRIMARY KEY NOT NULL, boss VARCHAR(50));
CREATE TABLE slots (code INTEGER NOT NULL, status INTEGER NOT NULL, title VARCHAR(50) NOT NULL, PRIMARY KEY (code, status));
CREATE TABLE gadgets (id {ID}, label VARCHAR(50) NOT NULL, status VARCHAR(20) DEFAULT 'new', size INTEGER NOT NULL DEFAULT 5, note VARCHAR(50), is_on BOOLEAN NOT NULL DEFAULT FALSE);
CREATE TABLE settings (code VARCHAR(50) PRIMARY KEY NOT NULL, value INTEGER NOT NULL DEFAULT 7);
CREATE TABLE docs (id INTEGER PRIMARY KEY NOT NULL, parent_id INTEGER, title VARCHAR(50) NOT NULL, version INTEGER NOT NULL, FOREIGN KEY (parent_id) REFERENCES docs (id));
CREATE TABLE balls (id {ID}, owner_id INTEGER, colour VARCHAR(50) NOT NULL, version INTEGER NOT NULL DEFAULT 1);
CREATE TABLE players (id {ID}, favourite_id INTEGER, name VARCHAR(50) NOT NULL, version INTEGER NOT NULL DEFAULT 1, FOREIGN KEY (favourite_id) REFERENCES balls (id));
CREATE TABLE shades (shade VARCHAR(50) PRIMARY KEY NOT NULL, note VARCHAR(100), other VARCHAR(100) DEFAULT 'usual');
CREATE TABLE blobs (id {ID}, data {BYTES});
CREATE TABLE {U1} (id {ID}, {U2} VARCHAR(50) NOT NULL, {U3} INTEGER);
CREATE TABLE partials (a INTEGER NOT NULL, b INTEGER, note VARCHAR(50) NOT NULL);
CREATE TABLE prices (id {ID}, net INTEGER NOT NULL, gross INTEGER GENERATED ALWAYS AS (net * 2) STORED);
CREATE TABLE tickets (id {COUNTED}, text VARCHAR(50) NOT NULL);
CREATE TABLE tokens (token VARCHAR(50) NOT NULL DEFAULT 'made', note VARCHAR(50) NOT NULL);
CREATE TABLE tones (tone VARCHAR(50) PRIMARY KEY NOT NULL, note VARCHAR(50) NOT NULL, version INTEGER NOT NULL);
CREATE TABLE keyless (id INTEGER NOT NULL, text VARCHAR(50) NOT NULL);
";

/// Closes the ring between players and balls, where tables can be made to.
const RING: &str = "ALTER TABLE balls ADD FOREIGN KEY (owner_id) REFERENCES players (id);";

/// The tables for the backend whose other tables are made by `schema`.
pub fn ddl(schema: &str) -> String {
    let (id, counted, bytes, quote, is_sqlite) = if schema.contains("AUTO_INCREMENT") {
        ("INTEGER PRIMARY KEY AUTO_INCREMENT", "INTEGER NOT NULL AUTO_INCREMENT, KEY (id)", "BLOB", '`', false)
    } else if schema.contains("SERIAL") {
        ("SERIAL PRIMARY KEY", "SERIAL", "BYTEA", '"', false)
    } else {
        ("INTEGER PRIMARY KEY NOT NULL", "INTEGER PRIMARY KEY NOT NULL", "BLOB", '"', true)
    };
    let quoted = |name: &str| format!("{quote}{name}{quote}");
    let tables = TABLES.replace("{ID}", id).replace("{COUNTED}", counted).replace("{BYTES}", bytes);
    let tables =
        tables.replace("{U1}", &quoted("unitéble")).replace("{U2}", &quoted("méil")).replace("{U3}", &quoted("ünder"));
    if is_sqlite {
        // It takes keys of tables that are not there yet, and no constraint later.
        return tables.replace("owner_id INTEGER, colour", "owner_id INTEGER REFERENCES players (id), colour");
    }
    tables + RING
}
