//! The subscriptions of all sessions: a tree of filter levels.
//!
//! In: filters with the session and its granted QoS. Out: for a topic, every subscribed session once, with the greatest
//! QoS among its matching filters. The cost grows with the levels of the topic and the hits, not with the number of
//! subscriptions: each of ten thousand agents has several.

use std::collections::HashMap;

use super::{filter::Filter, session::SessionId};
use rumqttc::mqttbytes::QoS;

#[derive(Default)]
struct Node {
    /// The next levels: literals and `+`, by their text; `#` is the last level of its filter and is in `rest`.
    children: HashMap<Box<str>, Node>,
    /// Filters that end here.
    here: Vec<(SessionId, QoS)>,
    /// Filters that end here with `/#`, or are `#` if this is the root.
    rest: Vec<(SessionId, QoS)>,
}

impl Node {
    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.here.is_empty() && self.rest.is_empty()
    }
}

/// All subscriptions of the broker.
#[derive(Default)]
pub(crate) struct Subscriptions {
    root: Node,
}

impl Subscriptions {
    /// Adds a subscription, or changes its QoS.
    pub(crate) fn insert(&mut self, filter: &Filter, session: SessionId, qos: QoS) {
        let mut node = &mut self.root;
        let (literal, rest) = split(filter);
        for level in literal.into_iter().flat_map(|path| path.split('/')) {
            // `entry` would allocate the key each time; most levels exist already.
            if !node.children.contains_key(level) {
                node.children.insert(level.into(), Node::default());
            }
            let Some(next) = node.children.get_mut(level) else { return };
            node = next;
        }
        let subscribers = if rest { &mut node.rest } else { &mut node.here };
        match subscribers.iter_mut().find(|(id, _)| *id == session) {
            Some(subscriber) => subscriber.1 = qos,
            None => subscribers.push((session, qos)),
        }
    }

    /// Removes a subscription, and the branches that this leaves empty.
    pub(crate) fn remove(&mut self, filter: &Filter, session: SessionId) {
        let (literal, rest) = split(filter);
        let levels: Vec<&str> = literal.into_iter().flat_map(|path| path.split('/')).collect();
        remove(&mut self.root, &levels, rest, session);
    }

    /// Appends every session that subscribed to `topic`, once each, to `found`, in order of session.
    pub(crate) fn collect(&self, topic: &str, found: &mut Vec<(SessionId, QoS)>) {
        let start = found.len();
        collect(&self.root, Some(topic), topic.starts_with('$'), found);
        let hits = &mut found[start..];
        if hits.len() > 1 {
            hits.sort_unstable_by_key(|(id, qos)| (*id, std::cmp::Reverse(*qos as u8)));
            // Overlapping filters deliver once. The sort put the greatest QoS of each session first: keep that one.
            let mut unique = start;
            for at in start..found.len() {
                if at == start || found[unique - 1].0 != found[at].0 {
                    found[unique] = found[at];
                    unique += 1;
                }
            }
            found.truncate(unique);
        }
    }
}

/// The path before a final `#`, if there is one, and whether there is such a `#`.
fn split(filter: &Filter) -> (Option<&str>, bool) {
    match filter.as_str() {
        "#" => (None, true),
        path => match path.strip_suffix("/#") {
            Some(path) => (Some(path), true),
            None => (Some(path), false),
        },
    }
}

fn remove(node: &mut Node, levels: &[&str], rest: bool, session: SessionId) {
    let Some((level, below)) = levels.split_first() else {
        let subscribers = if rest { &mut node.rest } else { &mut node.here };
        subscribers.retain(|(id, _)| *id != session);
        return;
    };
    if let Some(child) = node.children.get_mut(*level) {
        remove(child, below, rest, session);
        if child.is_empty() {
            node.children.remove(*level);
        }
    }
}

fn collect(node: &Node, topic: Option<&str>, hidden: bool, found: &mut Vec<(SessionId, QoS)>) {
    if !hidden {
        found.extend_from_slice(&node.rest);
    }
    let Some(topic) = topic else {
        found.extend_from_slice(&node.here);
        return;
    };
    let (level, below) = match topic.split_once('/') {
        Some((level, below)) => (level, Some(below)),
        None => (topic, None),
    };
    // `hidden` applies to wildcards in the first level only: `$SYS/#` names its first level.
    if let Some(child) = node.children.get(level) {
        collect(child, below, false, found);
    }
    if !hidden && let Some(child) = node.children.get("+") {
        collect(child, below, false, found);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::filter::tests::paths, *};

    #[test]
    fn finds_what_the_reference_matcher_finds() {
        let filters: Vec<_> =
            paths(&["", "a", "é", "$b", "+", "#"]).into_iter().filter_map(|f| Filter::new(f).ok()).collect();
        let mut tree = Subscriptions::default();
        for (id, filter) in filters.iter().enumerate() {
            tree.insert(filter, SessionId(id as u64), QoS::AtLeastOnce);
        }
        for topic in paths(&["", "a", "é", "$b"]) {
            let expected: Vec<u64> = (0..).zip(&filters).filter(|(_, f)| f.matches(&topic)).map(|(id, _)| id).collect();
            let mut found = Vec::new();
            tree.collect(&topic, &mut found);
            assert_eq!(found.iter().map(|(id, _)| id.0).collect::<Vec<_>>(), expected, "topic {topic:?}");
        }
        for (id, filter) in filters.iter().enumerate() {
            tree.remove(filter, SessionId(id as u64));
        }
        assert!(tree.root.is_empty());
    }

    #[test]
    fn overlapping_filters_find_a_session_once_with_the_greatest_qos() {
        let mut tree = Subscriptions::default();
        for (filter, session, qos) in [("a/#", 7, 0), ("a/+", 7, 1), ("a/b", 7, 0), ("#", 3, 0)] {
            let qos = if qos == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
            tree.insert(&Filter::new(filter).unwrap(), SessionId(session), qos);
        }
        let mut found = Vec::new();
        tree.collect("a/b", &mut found);
        assert_eq!(found, [(SessionId(3), QoS::AtMostOnce), (SessionId(7), QoS::AtLeastOnce)]);
    }
}
