//! All vectors, each under its name with the verdict that stands in the table.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::scene::Scene;

/// The vectors by name, `subject/telling-name`.
#[derive(Default)]
pub(crate) struct Book(BTreeMap<String, Map<String, Value>>);

impl Book {
    /// A presentation that must be accepted.
    pub(crate) fn accept(&mut self, name: &str, description: &str, bend: impl FnOnce(&mut Scene)) {
        self.enter(name, description, Value::Null, Value::Null, bend);
    }

    /// A presentation that must be refused by `rule`; `without` is what is said when just that rule is
    /// left out.
    pub(crate) fn refuse(
        &mut self,
        name: &str,
        description: &str,
        rule: &str,
        without: &str,
        bend: impl FnOnce(&mut Scene),
    ) {
        self.enter(name, description, json!(rule), json!(without), bend);
    }

    /// The vectors as JSON texts.
    pub(crate) fn files(&self) -> impl Iterator<Item = (String, String)> {
        self.0.iter().map(|(name, members)| {
            let text = serde_json::to_string_pretty(members).expect("a vector is JSON");
            (format!("{name}.json"), format!("{text}\n"))
        })
    }

    fn enter(
        &mut self,
        name: &str,
        description: &str,
        rule: Value,
        without: Value,
        bend: impl FnOnce(&mut Scene),
    ) {
        let mut scene = Scene::new(name);
        bend(&mut scene);
        let mut members = Map::new();
        members.insert("description".into(), json!(description));
        members.extend(scene.finish());
        let expected = if rule.is_null() { "accepted" } else { "refused" };
        members.insert("expected".into(), json!(expected));
        members.insert("rule".into(), rule);
        members.insert("without".into(), without);
        let before = self.0.insert(name.to_owned(), members);
        assert!(before.is_none(), "two vectors are called {name}");
    }
}
