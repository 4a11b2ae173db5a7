//! The agent's configuration file on a host: the keys of bootstrap are set, everything else stays as the operator wrote it.
//!
//! In: the present text of the file, if any, and the values to set. Out: the new text, unchanged if it has these values already, and the
//! relevant values of the old one. Comments, the order of keys, and other keys are kept.

use groundplan_protocol::{
    envelope::PublicKey,
    ids::{NodeId, SiteName},
};
use toml_edit::{Array, DocumentMut, Item, Table, value};

use super::paths::{CA, CERT, KEY, STATE};

const HEAD: &str = "\
# Written by `groundplan bootstrap`. It sets site, node, broker and planner_keys, and those keys of tls that are given;
# everything else in this file stays unchanged. `groundplan-agent --help` lists all keys.

";

/// The values that bootstrap sets.
#[derive(Debug, Clone)]
pub(super) struct Ours<'a> {
    pub(super) site: &'a SiteName,
    pub(super) node: &'a NodeId,
    pub(super) planner_key: &'a PublicKey,
    /// The broker of `--broker`; replaces the one in the file.
    pub(super) broker: Option<&'a str>,
    /// For a file without a broker.
    pub(super) default_broker: &'a str,
    /// Whether a certificate of the broker's authority is put on the host.
    pub(super) ca: bool,
    /// Whether a certificate of the node is put on the host.
    pub(super) certificate: bool,
}

/// The configuration file that the host is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Merged {
    pub(super) text: String,
    /// The broker that the agent will connect to.
    pub(super) broker: String,
    /// Whether the file names a certificate of that broker's authority.
    pub(super) has_ca: bool,
    /// Whether the file has a table `tls`.
    pub(super) has_tls: bool,
    pub(super) before: Before,
}

/// The relevant values of the old file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Before {
    pub(super) site: Option<String>,
    pub(super) node: Option<String>,
    pub(super) planner_keys: Vec<String>,
    pub(super) state_dir: String,
}

/// The file on the host is not a configuration of an agent: a message with line and column.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct InvalidConfig(String);

/// Sets the keys of bootstrap in the text of a file.
///
/// # Errors
/// The text is not TOML, or its `tls` is not a table.
pub(super) fn merge(text: Option<&str>, ours: &Ours<'_>) -> Result<Merged, InvalidConfig> {
    let old = text.unwrap_or_default();
    let mut document: DocumentMut =
        old.parse().map_err(|e: toml_edit::TomlError| InvalidConfig(e.to_string().trim_end().to_owned()))?;
    let string = |document: &DocumentMut, key: &str| document.get(key).and_then(Item::as_str).map(str::to_owned);
    let keys = document.get("planner_keys").and_then(Item::as_array);
    let before = Before {
        site: string(&document, "site"),
        node: string(&document, "node"),
        planner_keys: keys.into_iter().flatten().filter_map(|key| Some(key.as_str()?.to_owned())).collect(),
        state_dir: string(&document, "state_dir").unwrap_or_else(|| STATE.to_owned()),
    };
    set(document.as_table_mut(), "site", ours.site.as_str());
    set(document.as_table_mut(), "node", ours.node.as_str());
    let kept = string(&document, "broker");
    let broker = ours.broker.or(kept.as_deref()).unwrap_or(ours.default_broker).to_owned();
    set(document.as_table_mut(), "broker", &broker);
    let key = ours.planner_key.to_string();
    // Further planners that the operator trusts stay. A file without our key belongs to another planner: its keys are replaced.
    if !before.planner_keys.contains(&key) {
        document.insert("planner_keys", value(Array::from_iter([key])));
    }
    if ours.ca || ours.certificate {
        let tls = document.entry("tls").or_insert_with(|| Item::Table(Table::new()));
        let tls = tls.as_table_like_mut().ok_or_else(|| InvalidConfig("`tls` is not a table".to_owned()))?;
        let pairs = [("ca", CA, ours.ca), ("cert", CERT, ours.certificate), ("key", KEY, ours.certificate)];
        for (key, path, _) in pairs.iter().filter(|(.., given)| *given) {
            if tls.get(key).and_then(Item::as_str) != Some(path) {
                tls.insert(key, value(*path));
            }
        }
    }
    let tls = document.get("tls").and_then(Item::as_table_like);
    Ok(Merged {
        has_ca: tls.is_some_and(|tls| tls.contains_key("ca")),
        has_tls: tls.is_some(),
        text: if old.trim().is_empty() { format!("{HEAD}{document}") } else { document.to_string() },
        broker,
        before,
    })
}

/// Sets a key. A value that is equal already keeps its quotes and spaces; one that is replaced keeps the comment behind it.
fn set(table: &mut Table, key: &str, text: &str) {
    match table.get_mut(key) {
        Some(item) if item.as_str() == Some(text) => {}
        Some(Item::Value(old)) => {
            let decor = old.decor().clone();
            *old = text.into();
            *old.decor_mut() = decor;
        }
        _ => _ = table.insert(key, value(text)),
    }
}

#[cfg(test)]
mod tests {
    use groundplan_protocol::envelope::SigningKey;

    use super::*;

    fn merged(text: Option<&str>, change: impl FnOnce(&mut Ours<'_>)) -> Result<Merged, InvalidConfig> {
        let (site, node) = (SiteName::new("cloud-1").unwrap(), NodeId::new("db-0").unwrap());
        let planner_key = SigningKey::from_seed([1; 32]).public();
        let mut ours = Ours {
            site: &site,
            node: &node,
            planner_key: &planner_key,
            broker: None,
            default_broker: "mqtt://b:1883",
            ca: false,
            certificate: false,
        };
        change(&mut ours);
        merge(text, &ours)
    }

    #[test]
    fn a_new_file_has_a_heading_and_is_not_changed_the_second_time() {
        let first = merged(None, |ours| (ours.ca, ours.certificate) = (true, true)).unwrap();
        assert!(first.text.starts_with("# Written by `groundplan bootstrap`"), "{}", first.text);
        let parsed: toml::Table = first.text.parse().unwrap();
        assert_eq!(parsed["broker"].as_str(), Some("mqtt://b:1883"));
        assert_eq!(parsed["tls"]["cert"].as_str(), Some(CERT));
        assert_eq!(first.before, Before { state_dir: STATE.to_owned(), ..Before::default() });
        let second = merged(Some(&first.text), |ours| (ours.ca, ours.certificate) = (true, true)).unwrap();
        assert_eq!(second.text, first.text);
        // Certificates that are not given stay in the file.
        assert_eq!(merged(Some(&first.text), |_| ()).unwrap().text, first.text);
    }

    #[test]
    fn comments_and_other_keys_stay() {
        let key = SigningKey::from_seed([1; 32]).public();
        let text = format!(
            "# ours is slow\nkeep_alive = \"90s\"   # satellite\nsite = 'cloud-1'\nnode = \"db-0\" # here\nbroker = \"mqtts://other:1\"\n\
             planner_keys = [\n  \"ed25519:old\", # the second planner\n  \"{key}\",\n]\n\n[tls]\nca = \"/etc/ssl/ours.pem\"\n"
        );
        let same = merged(Some(&text), |_| ()).unwrap();
        assert_eq!((same.text.as_str(), same.broker.as_str(), same.has_ca), (text.as_str(), "mqtts://other:1", true));
        let other = merged(Some(&text), |ours| ours.broker = Some("mqtts://b:8883")).unwrap();
        assert_eq!(other.text, text.replace("mqtts://other:1", "mqtts://b:8883"));
        let foreign =
            merged(Some("site = \"a\"\nnode = \"b\" # it\nplanner_keys = [\"x\"]\nstate_dir = \"/s\"\n"), |_| ())
                .unwrap();
        assert!(foreign.text.contains("node = \"db-0\" # it\n"), "{}", foreign.text);
        assert_eq!((foreign.before.site.as_deref(), foreign.before.state_dir.as_str()), (Some("a"), "/s"));
        assert_eq!(foreign.before.planner_keys, ["x"]);
    }

    #[test]
    fn an_invalid_file_is_refused_with_its_place() {
        let error = merged(Some("site = \n"), |_| ()).unwrap_err().to_string();
        assert!(error.contains("line 1"), "{error}");
        assert!(merged(Some("tls = 3"), |ours| ours.ca = true).is_err());
    }
}
