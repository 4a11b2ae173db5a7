//! `package`: packages of the host's package manager.

use std::fmt;

use schemars::{JsonSchema, Schema};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{
        MapAccess, SeqAccess, Visitor,
        value::{MapAccessDeserializer, SeqAccessDeserializer},
    },
};

use super::{
    claim::{Claim, TaskClaim},
    kind::Kind,
    problem::Problem,
};
use crate::{duration::Span, effect::Effect, ids::TaskId};

/// How old the package index may be if `update_cache` is not given.
const DEFAULT_UPDATE_CACHE: Span = Span::secs(24 * 60 * 60);
/// How long a lock of the package manager is waited for if `lock_timeout` is not given.
const DEFAULT_LOCK_TIMEOUT: Span = Span::secs(600);

/// Packages, managed with the host's own package manager: apt, dnf, zypper or apk. A name or a list of names is short for
/// `{ names = [...] }`. What is missing is installed in one transaction. Configuration files that are on the host stay as they
/// are. Removal removes what this task itself installed, unless other packages need it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, transform = with_short_forms)]
pub struct Package {
    /// Their names, as the host's package manager knows them.
    pub names: Vec<String>,
    /// Whether they are installed; `present` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<PackageState>,
    /// The version, where one package is named, as the package manager writes it; `*` matches any characters, such as
    /// `"1.24*"`. It may be older than the one that is installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Whether they are kept from being upgraded with the rest of the host; left as it is if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<bool>,
    /// How old the package index may be before it is fetched again; `24h` if not given. It is fetched only when there is
    /// something to install, or the latest version to be found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_cache: Option<Span>,
    /// Whether recommended packages are installed as well; the host's own setting if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recommends: Option<bool>,
    /// `false` keeps the services in the packages from being started as they are installed, before they are configured; the
    /// host's own policy if not given. Only apt starts services at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_services: Option<bool>,
    /// Whether configuration files are removed with the packages; `false` if not given. Only apt keeps any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purge: Option<bool>,
    /// How long to wait for a package manager that another program runs; `10m` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock_timeout: Option<Span>,
}

/// Whether packages are installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PackageState {
    /// They are installed.
    #[default]
    Present,
    /// They are not installed.
    Absent,
    /// They are installed, in the newest version that the package index has.
    Latest,
}

impl Package {
    /// Whether they are to be installed.
    pub fn state(&self) -> PackageState {
        self.state.unwrap_or_default()
    }

    /// How old the package index may be before it is fetched again.
    pub fn update_cache(&self) -> Span {
        self.update_cache.unwrap_or(DEFAULT_UPDATE_CACHE)
    }

    /// How long to wait for a lock of the package manager.
    pub fn lock_timeout(&self) -> Span {
        self.lock_timeout.unwrap_or(DEFAULT_LOCK_TIMEOUT)
    }
}

impl Kind for Package {
    const NAME: &'static str = "package";
    const SUMMARY: &'static str = "packages of the host's package manager";
    const EFFECTS: &'static [Effect] = &[];

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.names.is_empty() {
            problems.push(Problem::new("names", "is empty", "name at least one package"));
        }
        for (i, name) in self.names.iter().enumerate() {
            let shown = name.escape_default();
            if !is_name(name) {
                let hint = "give names as the package manager writes them; a version goes into `version`";
                problems.push(Problem::new("names", format!("`{shown}` is not the name of a package"), hint));
            } else if self.names[..i].contains(name) {
                problems.push(Problem::new("names", format!("`{shown}` is named twice"), "name each package once"));
            }
        }
        let absent = self.state() == PackageState::Absent;
        if let Some(version) = &self.version {
            if self.names.len() > 1 {
                let hint = "give each package with a version a task of its own";
                problems.push(Problem::new("version", "is given together with several names", hint));
            }
            if self.state() != PackageState::Present {
                let hint = "leave one of the two out";
                problems.push(Problem::new("version", "is given together with a `state` other than `present`", hint));
            }
            let plain = |b: u8| b.is_ascii_alphanumeric() || b".+~:*-_^".contains(&b);
            if version.is_empty() || version.starts_with('-') || !version.bytes().all(plain) {
                let message = format!("`{}` is not a version", version.escape_default());
                problems.push(Problem::new(
                    "version",
                    message,
                    "give a version such as `1.2-3` or a pattern such as `1.2*`",
                ));
            }
        }
        if absent && self.hold == Some(true) {
            problems.push(Problem::new("hold", "holds packages that are to be absent", "leave one of the two out"));
        }
        problems
    }

    fn drop_incidental(&mut self) {
        self.update_cache = None;
        self.lock_timeout = None;
        self.start_services = None;
    }

    fn destroys(&self) -> Option<String> {
        let goes = self.purge == Some(true);
        goes.then(|| format!("the configuration, and maybe the data, of {}", self.names.join(", ")))
    }

    fn claims<'a>(&'a self, task: &'a TaskId, claim: &mut dyn FnMut(TaskClaim<'a>)) {
        claim(TaskClaim::exclusive(Claim::part("packages", task), "names"));
        let wanted = self.names.iter().filter(|_| self.state() != PackageState::Absent);
        wanted.for_each(|name| claim(TaskClaim::shared(Claim::named("package", name), "names")));
    }

    fn identity<'a>(&'a self, _: &'a TaskId, claim: &mut dyn FnMut(Claim<'a>)) {
        self.names.iter().for_each(|name| claim(Claim::named("package", name)));
    }
}

/// Whether every package manager takes it as one name. apt reads a trailing `-` as a request to remove, and `=` or `/` as a
/// version.
fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"+._-:()".contains(&b);
    name.starts_with(|c: char| c.is_ascii_alphanumeric()) && !name.ends_with('-') && name.bytes().all(plain)
}

impl<'de> Deserialize<'de> for Package {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(PackageVisitor)
    }
}

/// `Package` as a table.
#[derive(Deserialize)]
#[serde(remote = "Package", deny_unknown_fields)]
struct Table {
    names: Vec<String>,
    state: Option<PackageState>,
    version: Option<String>,
    hold: Option<bool>,
    update_cache: Option<Span>,
    recommends: Option<bool>,
    start_services: Option<bool>,
    purge: Option<bool>,
    lock_timeout: Option<Span>,
}

struct PackageVisitor;

impl<'de> Visitor<'de> for PackageVisitor {
    type Value = Package;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a package, a list of names, or a table")
    }

    fn visit_str<E>(self, name: &str) -> Result<Package, E> {
        Ok(of(vec![name.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, names: A) -> Result<Package, A::Error> {
        Ok(of(Vec::deserialize(SeqAccessDeserializer::new(names))?))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Package, A::Error> {
        Table::deserialize(MapAccessDeserializer::new(map))
    }
}

fn of(names: Vec<String>) -> Package {
    Package {
        names,
        state: None,
        version: None,
        hold: None,
        update_cache: None,
        recommends: None,
        start_services: None,
        purge: None,
        lock_timeout: None,
    }
}

/// Adds a name and a list of names to the schema of the table.
fn with_short_forms(schema: &mut Schema) {
    let mut table = std::mem::take(schema);
    let description = table.remove("description");
    let table = table.to_value();
    let name = serde_json::json!({ "type": "string", "description": "The name of one package." });
    let names =
        serde_json::json!({ "type": "array", "items": { "type": "string" }, "description": "Names of packages." });
    schema.insert("anyOf".to_owned(), serde_json::json!([name, names, table]));
    if let Some(description) = description {
        schema.insert("description".to_owned(), description);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: serde_json::Value) -> Result<Package, String> {
        serde_json::from_value(value).map_err(|e| e.to_string())
    }

    fn problems(value: serde_json::Value) -> Vec<String> {
        read(value).unwrap().problems().into_iter().map(|p| format!("{} {}", p.param, p.message)).collect()
    }

    #[test]
    fn a_name_and_a_list_are_short_forms() {
        let full = read(json!({ "names": ["nginx"] })).unwrap();
        assert_eq!(read(json!("nginx")).unwrap(), full);
        assert_eq!(read(json!(["nginx"])).unwrap(), full);
        // On the wire all three are the same.
        assert_eq!(serde_json::to_value(&full).unwrap(), json!({ "names": ["nginx"] }));
        assert!(read(json!({ "name": "nginx" })).unwrap_err().contains("unknown field `name`"));
        assert!(read(json!({ "state": "present" })).unwrap_err().contains("missing field `names`"));
        assert!(read(json!(7)).is_err());
    }

    #[test]
    fn names_and_versions_are_what_package_managers_take() {
        assert!(problems(json!(["g++", "libc6:i386", "python3.11", "0ad", "perl(Foo::Bar)"])).is_empty());
        for name in ["", "-y", "nginx-", "a=1", "a/stable", "a b", "a*", "a\n"] {
            assert_eq!(
                problems(json!(name)),
                [format!("names `{}` is not the name of a package", name.escape_default())]
            );
        }
        assert_eq!(problems(json!(["a", "a"])), ["names `a` is named twice"]);
        assert_eq!(problems(json!([])), ["names is empty"]);
        assert!(problems(json!({ "names": ["a"], "version": "1:1.2~rc1+dfsg-3*" })).is_empty());
        assert_eq!(
            problems(json!({ "names": ["a", "b"], "version": "1" })),
            ["version is given together with several names"]
        );
        assert_eq!(problems(json!({ "names": ["a"], "version": "1 2" })), ["version `1 2` is not a version"]);
        let absent = json!({ "names": ["a"], "version": "1", "state": "absent", "hold": true });
        let faults = [
            "version is given together with a `state` other than `present`",
            "hold holds packages that are to be absent",
        ];
        assert_eq!(problems(absent), faults);
    }
}
