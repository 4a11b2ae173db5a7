//! Which nodes somebody means: `ctl-*,!rack=a1` → a set of declared nodes.
//!
//! In: what was typed, and the site's inventory and catalog. Out: at least one node, or what is wrong with the words and what there
//! is to choose from. A part that can only be a mistake (a name, label or pattern that nothing has) is an error wherever it stands, or
//! `!typo` would mean every node. Pure: reads nothing, asks nobody.

mod expr;
mod parse;
mod resolve;

use std::{collections::BTreeSet, fmt, str::FromStr};

use groundplan_inventory::Inventory;
use groundplan_protocol::ids::NodeId;
use groundplan_services::Catalog;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::{expr::Expr, resolve::Names};
pub use self::{parse::SyntaxError, resolve::SelectError};

/// The grammar in a few lines, for `--help`.
pub(crate) const HELP: &str = "\
Selectors:
  all               every node
  ctl-0             a node, or the nodes of a group; `node:x` and `group:x` where both are called so
  ctl-*             nodes by their names: `*` is any text, `?` one character
  rack=a1           nodes with that label; patterns too, and other characters in quotes: rack=\"a, 1\"
  service:keystone  nodes that run a service
  a,b   a&b   !a    either, both, not; `&` before `,`, and (…) around what belongs together";

/// What was typed, and what it means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Selector {
    text: String,
    expr: Expr,
}

impl Selector {
    /// The nodes that it means: one at least.
    ///
    /// # Errors
    /// A part of it can only be a mistake, or nothing is left.
    pub fn select(&self, inventory: &Inventory, catalog: &Catalog) -> Result<BTreeSet<NodeId>, SelectError> {
        let site = Names { inventory, catalog };
        let nodes = site.expr(&self.expr)?;
        if nodes.is_empty() {
            return Err(SelectError::Empty { selector: self.text.clone(), hint: site.parts(&self.expr) });
        }
        Ok(nodes)
    }

    /// As it was typed.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Selector {
    type Err = SyntaxError;

    fn from_str(text: &str) -> Result<Self, SyntaxError> {
        Ok(Self { text: text.trim().to_owned(), expr: parse::parse(text)? })
    }
}

impl TryFrom<String> for Selector {
    type Error = SyntaxError;

    fn try_from(text: String) -> Result<Self, SyntaxError> {
        text.parse()
    }
}

impl From<Selector> for String {
    fn from(selector: Selector) -> Self {
        selector.text
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests;
