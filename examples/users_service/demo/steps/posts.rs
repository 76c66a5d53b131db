//! The steps with posts.

use diesel::prelude::*;
use serde_json::json;

use super::{CLIENTS, Step, Steps, USERS_EACH};
use crate::demo::client::{Client, crowd};
use crate::in_words;
use crate::schema::{posts, users};

const POSTS_EACH: usize = 3;
const POSTS: usize = CLIENTS * POSTS_EACH;

impl Steps<'_> {
    pub(super) fn posts(&mut self) -> Step {
        let paths: Vec<String> =
            (0..CLIENTS).map(|i| format!("/users/{}-{i}-{}/posts", self.prefix, i % USERS_EACH)).collect();
        let answers = crowd(self.base, CLIENTS, |i, client| {
            let post = |n| client.post(&paths[i], &json!({ "title": format!("Post {n}"), "body": "Words." }));
            (0..POSTS_EACH).map(post).collect()
        })?;
        self.posts_row("each writes posts of its user's", &answers, &[(201, POSTS)], POSTS)?;

        let answers = crowd(self.base, CLIENTS, |i, client| Ok(vec![client.get(&paths[i])?]))?;
        let are_complete = answers.iter().all(|answer| {
            let titles = answer.json["posts"].as_array().map(|posts| posts.iter().map(|post| &post["title"]));
            titles.is_some_and(|titles| titles.eq(["Post 0", "Post 1", "Post 2"]))
        });
        self.table.same("each user's posts, in order", &are_complete.to_string(), "true");
        let first = answers[0].json["posts"][0]["id"].clone();
        let theirs = answers[1].json["posts"][0]["id"].clone();
        self.posts_row("each reads them", &answers, &[(200, CLIENTS)], POSTS)?;

        let path = format!("{}/{first}", paths[0]);
        let answers = crowd(self.base, 2, |i, client| {
            let changes = if i == 0 { json!({ "title": "New" }) } else { json!({ "body": "Other words." }) };
            Ok(vec![client.ask("PATCH", &path, Some(&changes.to_string()))?])
        })?;
        let client = Client::new(self.base);
        let post = client.get(&path)?.json;
        let is = format!("{}, {}", post["title"], post["body"]);
        self.table.same("a post's title and body, changed at once", &is, r#""New", "Other words.""#);
        self.posts_row("two change one post, a column each", &answers, &[(200, 2)], POSTS)?;

        let delete = |path: &str| client.ask("DELETE", path, None);
        let answers = [delete(&path)?, delete(&path)?, delete(&format!("{}/{theirs}", paths[0]))?];
        self.posts_row("a post is deleted, twice; another's post", &answers, &[(204, 1), (404, 2)], POSTS - 1)
    }

    pub(super) fn posts_row(
        &mut self,
        asked: &str,
        answers: &[crate::demo::client::Answer],
        statuses: &[(u16, usize)],
        expected: usize,
    ) -> Step {
        let ours = users::table.filter(users::nickname.like(format!("{}%", self.prefix))).select(users::id);
        let count = posts::table.filter(posts::user_id.eq_any(ours)).count();
        let stored = self.registry.read(|session| session.get_result::<i64>(count)).map_err(in_words)?;
        self.table.row(asked, answers, statuses, (format!("{stored} posts"), format!("{expected} posts")));
        Ok(())
    }
}
