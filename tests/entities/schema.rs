//! The tables, for each backend.

diesel::table! {
    users (id) {
        id -> Integer,
        nickname -> Text,
        email -> Nullable<Text>,
        balance -> BigInt,
        version -> Integer,
    }
}

diesel::table! {
    posts (id) {
        id -> Integer,
        user_id -> Integer,
        parent_id -> Nullable<Integer>,
        title -> Text,
    }
}

diesel::table! {
    groups (id) {
        id -> Integer,
        name -> Text,
        owner_id -> Nullable<Integer>,
    }
}

diesel::table! {
    memberships (user_id, group_id) {
        user_id -> Integer,
        group_id -> Integer,
        role -> Text,
    }
}

diesel::table! {
    countries (code) {
        code -> Text,
        name -> Text,
        population -> BigInt,
    }
}

diesel::table! {
    rings (id) {
        id -> Integer,
        next_id -> Nullable<Integer>,
    }
}

pub const SQLITE: &str = "
CREATE TABLE users (id INTEGER PRIMARY KEY NOT NULL, nickname TEXT NOT NULL UNIQUE, email TEXT, balance BIGINT NOT NULL DEFAULT 0, version INTEGER NOT NULL DEFAULT 1);
CREATE TABLE posts (id INTEGER PRIMARY KEY NOT NULL, user_id INTEGER NOT NULL REFERENCES users (id), parent_id INTEGER REFERENCES posts (id), title TEXT NOT NULL);
CREATE TABLE groups (id INTEGER PRIMARY KEY NOT NULL, name TEXT NOT NULL, owner_id INTEGER REFERENCES users (id));
CREATE TABLE memberships (user_id INTEGER NOT NULL REFERENCES users (id), group_id INTEGER NOT NULL REFERENCES groups (id), role TEXT NOT NULL, PRIMARY KEY (user_id, group_id));
CREATE TABLE countries (code TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL, population BIGINT NOT NULL);
CREATE TABLE rings (id INTEGER PRIMARY KEY NOT NULL, next_id INTEGER REFERENCES rings (id));";

pub const POSTGRES: &str = "
CREATE TABLE users (id SERIAL PRIMARY KEY, nickname TEXT NOT NULL UNIQUE, email TEXT, balance BIGINT NOT NULL DEFAULT 0, version INTEGER NOT NULL DEFAULT 1);
CREATE TABLE posts (id SERIAL PRIMARY KEY, user_id INTEGER NOT NULL REFERENCES users (id), parent_id INTEGER REFERENCES posts (id), title TEXT NOT NULL);
CREATE TABLE groups (id SERIAL PRIMARY KEY, name TEXT NOT NULL, owner_id INTEGER REFERENCES users (id));
CREATE TABLE memberships (user_id INTEGER NOT NULL REFERENCES users (id), group_id INTEGER NOT NULL REFERENCES groups (id), role TEXT NOT NULL, PRIMARY KEY (user_id, group_id));
CREATE TABLE countries (code TEXT PRIMARY KEY, name TEXT NOT NULL, population BIGINT NOT NULL);
CREATE TABLE rings (id INTEGER PRIMARY KEY, next_id INTEGER REFERENCES rings (id));";

pub const MYSQL: &str = "
CREATE TABLE users (id INTEGER PRIMARY KEY AUTO_INCREMENT, nickname VARCHAR(100) NOT NULL UNIQUE, email TEXT, balance BIGINT NOT NULL DEFAULT 0, version INTEGER NOT NULL DEFAULT 1) ENGINE = InnoDB;
CREATE TABLE posts (id INTEGER PRIMARY KEY AUTO_INCREMENT, user_id INTEGER NOT NULL, parent_id INTEGER, title VARCHAR(200) NOT NULL, FOREIGN KEY (user_id) REFERENCES users (id), FOREIGN KEY (parent_id) REFERENCES posts (id)) ENGINE = InnoDB;
CREATE TABLE `groups` (id INTEGER PRIMARY KEY AUTO_INCREMENT, name VARCHAR(100) NOT NULL, owner_id INTEGER, FOREIGN KEY (owner_id) REFERENCES users (id)) ENGINE = InnoDB;
CREATE TABLE memberships (user_id INTEGER NOT NULL, group_id INTEGER NOT NULL, role VARCHAR(20) NOT NULL, PRIMARY KEY (user_id, group_id), FOREIGN KEY (user_id) REFERENCES users (id), FOREIGN KEY (group_id) REFERENCES `groups` (id)) ENGINE = InnoDB;
CREATE TABLE countries (code VARCHAR(2) PRIMARY KEY, name VARCHAR(100) NOT NULL, population BIGINT NOT NULL) ENGINE = InnoDB;
CREATE TABLE rings (id INTEGER PRIMARY KEY, next_id INTEGER, FOREIGN KEY (next_id) REFERENCES rings (id)) ENGINE = InnoDB;";
