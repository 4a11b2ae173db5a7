//! The agent's configuration file on a host: our keys set, everything else as the operator wrote it.
//!
//! In: what is in the file now, if anything, and what must stand there. Out: the new text, which is the old one where all is so
//! already, and what the old one said that matters. Comments, order and keys of others are kept.

use groundplan_protocol::{
    envelope::PublicKey,
    ids::{NodeId, SiteName},
};
use toml_edit::{Array, DocumentMut, Item, Table, value};

use super::paths::{CA, CERT, KEY, STATE};

const HEAD: &str = "\
# Written by `groundplan bootstrap`. It sets site, node, broker, planner_keys and what is given of tls,
# and leaves all else here as it is. `groundplan-agent --help` has all the keys.

";

/// What must stand there.
#[derive(Debug, Clone)]
pub(super) struct Ours<'a> {
    pub(super) site: &'a SiteName,
    pub(super) node: &'a NodeId,
    pub(super) planner_key: &'a PublicKey,
    /// If it was given.
    pub(super) broker: Option<&'a str>,
    /// Where nobody has said one.
    pub(super) default_broker: &'a str,
    /// Whether an authority's certificate is put on the host,
    pub(super) ca: bool,
    /// and one of the node.
    pub(super) certificate: bool,
}

/// The file as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Merged {
    pub(super) text: String,
    /// The broker that the agent will connect to.
    pub(super) broker: String,
    /// Whether that one's authority is named.
    pub(super) has_ca: bool,
    /// Whether there is anything about TLS.
    pub(super) has_tls: bool,
    pub(super) was: Was,
}

/// What it said before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Was {
    pub(super) site: Option<String>,
    pub(super) node: Option<String>,
    pub(super) planner_keys: Vec<String>,
    pub(super) state_dir: String,
}

/// The file on the host is no configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Broken(String);

/// Sets our keys in a text.
pub(super) fn merge(text: Option<&str>, ours: &Ours<'_>) -> Result<Merged, Broken> {
    let before = text.unwrap_or_default();
    let mut document: DocumentMut =
        before.parse().map_err(|e: toml_edit::TomlError| Broken(e.to_string().trim_end().to_owned()))?;
    let string = |document: &DocumentMut, key: &str| document.get(key).and_then(Item::as_str).map(str::to_owned);
    let keys = document.get("planner_keys").and_then(Item::as_array);
    let was = Was {
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
    // Others that the operator trusts stay, as long as ours is among them.
    if !was.planner_keys.contains(&key) {
        document.insert("planner_keys", value(Array::from_iter([key])));
    }
    if ours.ca || ours.certificate {
        let tls = document.entry("tls").or_insert_with(|| Item::Table(Table::new()));
        let tls = tls.as_table_like_mut().ok_or_else(|| Broken("`tls` is no table".to_owned()))?;
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
        text: if before.trim().is_empty() { format!("{HEAD}{document}") } else { document.to_string() },
        broker,
        was,
    })
}

/// Sets a key, if it is not so already: what is so keeps its form.
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

    fn merged(text: Option<&str>, change: impl FnOnce(&mut Ours<'_>)) -> Result<Merged, Broken> {
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
    fn a_new_file_says_who_wrote_it_and_stays_as_it_is_the_second_time() {
        let first = merged(None, |ours| (ours.ca, ours.certificate) = (true, true)).unwrap();
        assert!(first.text.starts_with("# Written by `groundplan bootstrap`"), "{}", first.text);
        let parsed: toml::Table = first.text.parse().unwrap();
        assert_eq!(parsed["broker"].as_str(), Some("mqtt://b:1883"));
        assert_eq!(parsed["tls"]["cert"].as_str(), Some(CERT));
        assert_eq!(first.was, Was { state_dir: STATE.to_owned(), ..Was::default() });
        let second = merged(Some(&first.text), |ours| (ours.ca, ours.certificate) = (true, true)).unwrap();
        assert_eq!(second.text, first.text);
        // What is not given is left.
        assert_eq!(merged(Some(&first.text), |_| ()).unwrap().text, first.text);
    }

    #[test]
    fn what_the_operator_wrote_stays() {
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
        assert_eq!((foreign.was.site.as_deref(), foreign.was.state_dir.as_str()), (Some("a"), "/s"));
        assert_eq!(foreign.was.planner_keys, ["x"]);
    }

    #[test]
    fn what_is_no_toml_is_told_with_its_place() {
        let said = merged(Some("site = \n"), |_| ()).unwrap_err().to_string();
        assert!(said.contains("line 1"), "{said}");
        assert!(merged(Some("tls = 3"), |ours| ours.ca = true).is_err());
    }
}
