//! The tables of `docs/protocol.md` are those of [`TOPICS`].

use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path};

use groundplan_protocol::topic::{Retention, TOPICS, TopicSpec};

const TOPICS_HEAD: &str = "| topic | direction | retained | message | largest payload |\n|---|---|---|---|---|\n";
const MESSAGES_HEAD: &str = "| message | `payloadType` is `application/vnd.groundplan.` … `+json` | signed by | encrypted |\n|---|---|---|---|\n";

fn topic_row(spec: &TopicSpec) -> String {
    let retained = match spec.retention {
        Retention::None => "no",
        Retention::Retained => "yes",
        Retention::RetainedWill => "yes, and last will",
    };
    let names: Vec<String> = spec.messages.iter().map(|message| format!("`{}`", message.name)).collect();
    let message = if names.is_empty() { "encrypted content, no envelope".to_owned() } else { names.join(" or ") };
    let limit = match spec.limit % 1024 {
        0 => format!("{} KiB", spec.limit / 1024),
        rest => format!("{} KiB and {rest} bytes", spec.limit / 1024),
    };
    format!("| `{}` | {} | {retained} | {message} | {limit} |\n", spec.pattern, spec.direction)
}

fn topics() -> String {
    TOPICS.iter().fold(TOPICS_HEAD.to_owned(), |table, spec| table + &topic_row(spec))
}

fn messages() -> String {
    let mut table = MESSAGES_HEAD.to_owned();
    for (spec, message) in TOPICS.iter().flat_map(|spec| spec.messages.iter().map(move |message| (spec, message))) {
        let signer = if spec.direction.is_from_agent() { "node" } else { "planner" };
        let short = message.payload_type.strip_prefix("application/vnd.groundplan.");
        let short = short.and_then(|short| short.strip_suffix("+json")).expect("one form of payload types");
        let recipient = match (message.encrypted, spec.direction.is_from_agent()) {
            (false, _) => "no",
            (true, true) => "to the planner",
            (true, false) => "to the node",
        };
        writeln!(table, "| `{}` | `{short}` | {signer} | {recipient} |", message.name).expect("a string takes all");
    }
    table
}

/// `page` with the table that begins with `head` replaced.
fn with_table(page: &str, head: &str, table: &str) -> String {
    let start = page.find(head).unwrap_or_else(|| panic!("docs/protocol.md has no table with the head {head}"));
    let rest = &page[start..];
    let end = rest.find("\n\n").map_or(rest.len(), |end| end + 1);
    format!("{}{table}{}", &page[..start], &rest[end..])
}

/// Compares the page with the table; with `UPDATE_PROTOCOL` set, writes it.
#[test]
fn the_page_has_the_topics_of_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/protocol.md");
    let page = fs::read_to_string(&path).expect("docs/protocol.md");
    let expected = with_table(&with_table(&page, TOPICS_HEAD, &topics()), MESSAGES_HEAD, &messages());
    if std::env::var_os("UPDATE_PROTOCOL").is_some() {
        return fs::write(&path, &expected).expect("docs/protocol.md can be written");
    }
    let hint = "UPDATE_PROTOCOL=1 cargo test -p groundplan-protocol --test page";
    assert!(page == expected, "the tables of docs/protocol.md are not those of the code: {hint}");
}

#[test]
fn no_two_topics_or_messages_share_a_name() {
    let messages: Vec<_> = TOPICS.iter().flat_map(|spec| spec.messages).collect();
    assert_eq!(TOPICS.iter().map(|spec| spec.pattern).collect::<BTreeSet<_>>().len(), TOPICS.len());
    assert_eq!(messages.iter().map(|m| m.name).collect::<BTreeSet<_>>().len(), messages.len());
    assert_eq!(messages.iter().map(|m| m.payload_type).collect::<BTreeSet<_>>().len(), messages.len());
}
