// @generated automatically by Diesel CLI.

diesel::table! {
    users (id) {
        id -> Integer,
        nickname -> Text,
        full_name -> Text,
        email -> Text,
        version -> Integer,
        created_at -> Timestamp,
    }
}
