//! Identifiers, one newtype each. Their grammar is checked here, where they are made, and nowhere else.
//!
//! All are ordered, so that everything that iterates over them is deterministic, and cheap to clone: a plan names the same
//! service thousands of times.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::as_text::as_text;

/// A name that does not follow the grammar of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not a valid {what}: {rule}")]
pub struct InvalidId {
    /// The text that was given.
    pub given: String,
    /// What it was to name, such as `node name`.
    pub what: &'static str,
    /// The grammar, for people.
    pub rule: &'static str,
}

/// Longest name, in bytes: the limit of a DNS name, and short enough for a topic.
const MAX_NAME: usize = 253;

fn is_name(s: &str, extra: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || extra.contains(c);
    s.len() <= MAX_NAME && s.starts_with(|c: char| c.is_ascii_alphanumeric()) && s.chars().all(inner)
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $pattern:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Makes one from text.
            ///
            /// # Errors
            /// If the text does not follow the grammar.
            pub fn new(name: impl AsRef<str>) -> Result<Self, InvalidId> {
                let name = name.as_ref();
                let check: fn(&str) -> bool = $check;
                if check(name) {
                    Ok(Self(name.into()))
                } else {
                    Err(InvalidId { given: name.to_owned(), what: $what, rule: $rule })
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(s: &str) -> Result<Self, InvalidId> {
                Self::new(s)
            }
        }

        as_text!($name, concat!("A ", $what, ": ", $rule), $pattern);
    };
}

name!(
    /// A site: one repository and branch, and all nodes that one planner manages.
    SiteName, "site name", "letters, digits, `-` and `_`, beginning with a letter or digit",
    "^[A-Za-z0-9][A-Za-z0-9_-]*$", |s| is_name(s, "")
);
name!(
    /// A node: a host with an agent.
    NodeId, "node name", "letters, digits, `-`, `_` and `.`, beginning with a letter or digit",
    "^[A-Za-z0-9][A-Za-z0-9_.-]*$", |s| is_name(s, ".")
);
name!(
    /// A group: a named set of nodes.
    GroupId, "group name", "letters, digits, `-` and `_`, beginning with a letter or digit",
    "^[A-Za-z0-9][A-Za-z0-9_-]*$", |s| is_name(s, "")
);
name!(
    /// A service: a folder of tasks.
    ServiceId, "service name", "letters, digits, `-` and `_`, beginning with a letter or digit",
    "^[A-Za-z0-9][A-Za-z0-9_-]*$", |s| is_name(s, "")
);
name!(
    /// A task's name within its service.
    TaskName, "task id", "letters, digits, `-` and `_`, beginning with a letter or digit",
    "^[A-Za-z0-9][A-Za-z0-9_-]*$", |s| is_name(s, "")
);
name!(
    /// A capability: a name that a task provides and others may require.
    Capability, "capability", "two or more names joined by `/`, such as `database/ready`",
    "^[A-Za-z0-9][A-Za-z0-9_-]*(/[A-Za-z0-9][A-Za-z0-9_-]*)+$",
    |s| s.contains('/') && s.split('/').all(|part| is_name(part, ""))
);
name!(
    /// Something of a node that one task at a time may use, by a name that the site gives it.
    Resource, "resource", "letters, digits and `-_./`, beginning with a letter or digit",
    "^[A-Za-z0-9][A-Za-z0-9_./-]*$", |s| is_name(s, "./")
);
name!(
    /// A dependency on other nodes that the planner opens. To the agent an opaque name.
    ///
    /// The planner writes `service.task` (every instance of that task) or `service.task@node` (that one), and
    /// `rolling/service.task@node` for a turn in a rolling restart.
    GateId, "gate", "letters, digits and `-_./@`", "^[A-Za-z0-9][A-Za-z0-9_./@-]*$", |s| is_name(s, "./@")
);
name!(
    /// The ledger of an agent: 32 hexadecimal digits drawn at random when the ledger is made.
    ///
    /// Another id under the same node name means that the node was rebuilt, and that its sequence numbers start again.
    LedgerId, "ledger id", "32 hexadecimal digits", "^[0-9a-f]{32}$",
    |s| s.len() == 32 && s.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
);
name!(
    /// One connection of one agent to the broker: 16 hexadecimal digits drawn at random when it is made.
    SessionId, "session id", "16 hexadecimal digits", "^[0-9a-f]{16}$",
    |s| s.len() == 16 && s.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
);
name!(
    /// A command run by `groundplan exec`: 8 hexadecimal digits drawn at random.
    ExecId, "exec id", "8 hexadecimal digits", "^[0-9a-f]{8}$",
    |s| s.len() == 8 && s.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
);
name!(
    /// A value that is used once: 32 hexadecimal digits drawn at random. What answers it was made after it.
    Nonce, "nonce", "32 hexadecimal digits", "^[0-9a-f]{32}$",
    |s| s.len() == 32 && s.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
);
name!(
    /// A git commit: 40 (SHA-1) or 64 (SHA-256) hexadecimal digits.
    CommitId, "commit id", "40 or 64 hexadecimal digits", "^([0-9a-f]{40}|[0-9a-f]{64})$",
    |s| (s.len() == 40 || s.len() == 64) && s.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
);

/// A task of a service, on any node: written `service.task`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    /// The service, which is the first part of the text.
    pub service: ServiceId,
    /// The task's name in it.
    pub task: TaskName,
}

impl TaskId {
    /// The task `task` of `service`.
    pub fn new(service: ServiceId, task: TaskName) -> Self {
        Self { service, task }
    }

    /// The instance of this task on `node`.
    pub fn at(&self, node: &NodeId) -> InstanceId {
        InstanceId { node: node.clone(), task: self.clone() }
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.service, self.task)
    }
}

impl FromStr for TaskId {
    type Err = InvalidId;

    fn from_str(s: &str) -> Result<Self, InvalidId> {
        let (service, task) = s.split_once('.').ok_or_else(|| InvalidId {
            given: s.to_owned(),
            what: "task",
            rule: "a service and a task of it, joined by a dot, such as `mariadb.start`",
        })?;
        Ok(Self { service: ServiceId::new(service)?, task: TaskName::new(task)? })
    }
}

/// A task on a node: the vertex of every graph. Written `service.task@node`; ordered by node, then task.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId {
    /// The node, which is the part after `@`.
    pub node: NodeId,
    /// The task, which is the part before `@`.
    pub task: TaskId,
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.task, self.node)
    }
}

impl FromStr for InstanceId {
    type Err = InvalidId;

    fn from_str(s: &str) -> Result<Self, InvalidId> {
        let (task, node) = s.split_once('@').ok_or_else(|| InvalidId {
            given: s.to_owned(),
            what: "instance",
            rule: "a task and its node, joined by `@`, such as `mariadb.start@db-0`",
        })?;
        Ok(Self { node: NodeId::new(node)?, task: task.parse()? })
    }
}

macro_rules! quoted {
    ($($name:ident)*) => {
        $(impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "\"{self}\"")
            }
        })*
    };
}

quoted!(TaskId InstanceId);
as_text!(TaskId, "A task: `service.task`");
as_text!(InstanceId, "A task on a node: `service.task@node`");

/// A number that grows with every plan of a site. Agents never step back; 0 is "no plan yet".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Generation {
    /// All generations are below this, so that they are exact in any JSON (RFC 8259, section 6) and never wrap.
    pub const LIMIT: Self = Self(1 << 53);

    /// The generation of the plan that follows this one.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Whether it is one that a planner may give.
    pub fn is_valid(self) -> bool {
        self < Self::LIMIT
    }
}

/// The number of a report within one ledger; the first is 1, and 0 is "none yet".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
pub struct Sequence(pub u64);

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The grammar of plain names, for hints to people.
pub const NAME_RULE: &str = "letters, digits, `-` and `_`, beginning with a letter or digit";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_their_grammar() {
        for good in ["a", "ctl-0", "A_b9"] {
            assert!(ServiceId::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a.b", "a/b", "a b", "ä", "a#", "+", "$x"] {
            assert!(ServiceId::new(bad).is_err(), "{bad}");
        }
        assert!(NodeId::new("db-0.example.org").is_ok());
        assert!(Capability::new("database/ready").is_ok());
        assert!(Capability::new("database").is_err());
        assert!(Capability::new("database//ready").is_err());
        assert!(GateId::new("rolling/keystone.api@ctl-0").is_ok());
    }

    #[test]
    fn composite_ids_round_trip() {
        let id: InstanceId = "mariadb.start@db-0.example.org".parse().unwrap();
        assert_eq!(id.to_string(), "mariadb.start@db-0.example.org");
        assert!("mariadb@db".parse::<InstanceId>().is_err());
        assert!("mariadb.start".parse::<InstanceId>().is_err());
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(serde_json::from_str::<InstanceId>(&json).unwrap(), id);
    }
}
