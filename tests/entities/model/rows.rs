//! The rows of all tables as one type, so that the model has one map.

use std::collections::BTreeMap;

use super::super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    User,
    Group,
    Country,
    Post,
    Membership,
}

impl Kind {
    pub(super) const ALL: [Self; 5] = [Self::User, Self::Group, Self::Country, Self::Post, Self::Membership];

    /// Whether its rows refer to rows of the other kind, so that the database may change or delete them with those.
    pub(super) fn may_go_with(self, other: Self) -> bool {
        match other {
            Self::User => matches!(self, Self::Post | Self::Group | Self::Membership),
            Self::Group => self == Self::Membership,
            Self::Post => self == Self::Post,
            Self::Country | Self::Membership => false,
        }
    }
}

/// A table and a key in it, as text that is in the order of the keys.
pub(super) type Key = (Kind, String);

/// What a database holds.
pub(super) type Rows = BTreeMap<Key, Row>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Row {
    User(User),
    Group(Group),
    Country(Country),
    Post(Post),
    Membership(Membership),
}

fn number(key: i32) -> String {
    format!("{key:08}")
}

fn user_key(id: i32) -> Key {
    (Kind::User, number(id))
}

impl Row {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::User(_) => Kind::User,
            Self::Group(_) => Kind::Group,
            Self::Country(_) => Kind::Country,
            Self::Post(_) => Kind::Post,
            Self::Membership(_) => Kind::Membership,
        }
    }

    pub(super) fn key(&self) -> Key {
        let key = match self {
            Self::User(user) => number(user.id),
            Self::Group(group) => number(group.id),
            Self::Country(country) => country.code.clone(),
            Self::Post(post) => number(post.id),
            Self::Membership(membership) => {
                format!("{}/{}", number(membership.user_id), number(membership.group_id))
            }
        };
        (self.kind(), key)
    }

    /// The key that the database makes.
    pub(super) fn id(&mut self) -> Option<&mut i32> {
        match self {
            Self::User(user) => Some(&mut user.id),
            Self::Group(group) => Some(&mut group.id),
            Self::Post(post) => Some(&mut post.id),
            Self::Country(_) | Self::Membership(_) => None,
        }
    }

    /// By which a row without its key is found again.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::User(user) => &user.nickname,
            Self::Group(group) => &group.name,
            Self::Country(country) => &country.code,
            Self::Post(post) => &post.title,
            Self::Membership(membership) => &membership.role,
        }
    }

    pub(super) fn nickname(&self) -> Option<&str> {
        match self {
            Self::User(user) => Some(&user.nickname),
            _ => None,
        }
    }

    pub(super) fn version(&self) -> Option<i32> {
        match self {
            Self::User(user) => Some(user.version),
            _ => None,
        }
    }

    pub(super) fn set_version(&mut self, version: i32) {
        if let Self::User(user) = self {
            user.version = version;
        }
    }

    pub(super) fn references(&self) -> Vec<Key> {
        match self {
            Self::User(_) | Self::Country(_) | Self::Group(_) => Vec::new(),
            Self::Post(post) => {
                let parent = post.parent_id.map(|id| (Kind::Post, number(id)));
                std::iter::once(user_key(post.user_id)).chain(parent).collect()
            }
            Self::Membership(membership) => {
                vec![user_key(membership.user_id), (Kind::Group, number(membership.group_id))]
            }
        }
    }

    /// The row after an UPDATE of the columns in which `new` differs from `old`.
    pub(super) fn with_changes(&self, old: &Self, new: &Self) -> Self {
        macro_rules! columns {
            ($row:ident, $old:ident, $new:ident: $($column:ident),+) => {{
                let mut row = $row.clone();
                $(if $old.$column != $new.$column {
                    row.$column = $new.$column.clone();
                })+
                row
            }};
        }
        match (self, old, new) {
            (Self::User(row), Self::User(old), Self::User(new)) => {
                Self::User(columns!(row, old, new: nickname, email, balance, version))
            }
            (Self::Group(row), Self::Group(old), Self::Group(new)) => Self::Group(columns!(row, old, new: name)),
            (Self::Country(row), Self::Country(old), Self::Country(new)) => {
                Self::Country(columns!(row, old, new: code, name, population))
            }
            (Self::Post(row), Self::Post(old), Self::Post(new)) => Self::Post(columns!(row, old, new: title)),
            (Self::Membership(row), Self::Membership(old), Self::Membership(new)) => {
                Self::Membership(columns!(row, old, new: role))
            }
            _ => panic!("rows of different tables"),
        }
    }

    /// A change that a program makes to a row it knows.
    pub(super) fn edited(&self, edit: &Edit) -> Self {
        let mut row = self.clone();
        match (&mut row, edit) {
            (Self::User(user), Edit::Number(n)) => user.balance = *n,
            (Self::User(user), Edit::Text(text)) => user.nickname.clone_from(text),
            (Self::Country(country), Edit::Number(n)) => country.population = *n,
            (Self::Country(country), Edit::Text(text)) => country.name.clone_from(text),
            (Self::Country(country), Edit::Code(code)) => country.code.clone_from(code),
            (Self::Group(group), Edit::Number(n)) => group.name = format!("group {n}"),
            (Self::Post(post), Edit::Number(n)) => post.title = format!("title {n}"),
            (Self::Membership(membership), Edit::Number(n)) => membership.role = format!("role {n}"),
            _ => {}
        }
        row
    }
}

#[derive(Debug, Clone)]
pub(super) enum Edit {
    Number(i64),
    Text(String),
    Code(String),
}
