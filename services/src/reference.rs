//! References as people write them.

use std::str::FromStr;

use groundplan_inventory::hint;
use groundplan_protocol::ids::{Capability, NodeId, TaskId, TaskName};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Error};

use crate::model::Reference;

/// Text that refers to nothing: the fault and, after `: `, what is expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not a reference: {rule}")]
pub struct InvalidReference {
    given: String,
    rule: &'static str,
}

const FORMS: &str = "`task`, `service.task`, `service.task@node` or a capability such as `database/ready`";

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(s: &str) -> Result<Self, InvalidReference> {
        let invalid = |rule| InvalidReference { given: hint::excerpt(s), rule };
        if s.contains('/') {
            return match Capability::new(s) {
                Ok(capability) => Ok(Self::Capability(capability)),
                Err(_) if s.contains('@') => {
                    Err(invalid("a capability without a node: all instances of its provider count"))
                }
                Err(_) => Err(invalid("two or more names joined by `/`, such as `database/ready`")),
            };
        }
        if let Some((task, node)) = s.split_once('@') {
            if !task.contains('.') {
                return Err(invalid("the service as well, `service.task@node`"));
            }
            let task: TaskId = task.parse().map_err(|_| invalid(FORMS))?;
            return Ok(Self::Instance(task, NodeId::new(node).map_err(|_| invalid(FORMS))?));
        }
        if s.contains('.') {
            return s.parse().map(Self::Task).map_err(|_| invalid(FORMS));
        }
        TaskName::new(s).map(Self::Local).map_err(|_| invalid(FORMS))
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for Reference {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Reference".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "`task` (of this service, on this node), `service.task` (on every node that runs it), \
                `service.task@node` (on that node only), or a capability such as `database/ready`",
            "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]*((/[A-Za-z0-9][A-Za-z0-9_-]*)+|\\.[A-Za-z0-9][A-Za-z0-9_-]*(@[A-Za-z0-9][A-Za-z0-9_.-]*)?)?$"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_read_and_write_alike() {
        for good in ["config", "mariadb.start", "mariadb.start@db-0.example.org", "database/ready", "a/b/c"] {
            assert_eq!(good.parse::<Reference>().unwrap().to_string(), good);
        }
        for bad in ["", "a.", ".a", "a.b.c", "a@n", "a/b@n", "a.b@", "a/", "a b", "@", "a.b@n@m"] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
    }
}
