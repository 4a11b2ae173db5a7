//! `hostname`: the host's own name.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    claim::{Claim, TaskClaim},
    kind::Kind,
    problem::Problem,
};
use crate::{effect::Effect, ids::TaskId};

/// The host's own name, at once and after a reboot. `/etc/hosts` is left alone. Removal restores the host's former name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hostname {
    /// The name (hostname(5)), at most 64 bytes.
    pub name: String,
    /// A descriptive name, in `/etc/machine-info` (machine-info(5)); left as it is if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pretty: Option<String>,
}

impl Kind for Hostname {
    const NAME: &'static str = "hostname";
    const SUMMARY: &'static str = "the host's own name";
    const EFFECTS: &'static [Effect] = &[];

    fn problems(&self) -> Vec<Problem> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let is_label = |label: &str| {
            !label.is_empty() && label.chars().all(plain) && !label.starts_with('-') && !label.ends_with('-')
        };
        let good = self.name.len() <= 64 && self.name.split('.').all(is_label);
        let name = (!good).then(|| {
            let message = format!("`{}` is not the name of a host", self.name.escape_default());
            Problem::new("name", message, "use at most 64 letters, digits and `-`, in parts joined by `.`")
        });
        let pretty = self.pretty.as_ref().filter(|pretty| pretty.chars().any(char::is_control));
        let pretty = pretty.map(|_| Problem::new("pretty", "has a control character", "give one line of text"));
        name.into_iter().chain(pretty).collect()
    }

    fn claims<'a>(&'a self, _: &'a TaskId, claim: &mut dyn FnMut(TaskClaim<'a>)) {
        claim(TaskClaim::exclusive(Claim::named("name of", "the host"), "name"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_hosts() {
        let problems = |name: &str| Hostname { name: name.to_owned(), pretty: None }.problems().len();
        for good in ["ctl-0", "ctl-0.example.org", "0"] {
            assert_eq!(problems(good), 0, "{good}");
        }
        for bad in ["", "-a", "a-", "a..b", "a_b", "a b", ".a", &"a".repeat(65)] {
            assert_eq!(problems(bad), 1, "{bad}");
        }
    }
}
