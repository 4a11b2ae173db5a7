//! Selectors: `ctl-*,!rack=a1` → a set of declared nodes.
//!
//! In: a text, and the site's inventory and catalog. Out: at least one node, or an error with the names that the site has. A part that
//! matches nothing because its name, label or pattern does not exist is an error wherever it stands, or `!typo` would match every node.
//! Pure: no IO.

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

/// A summary of the grammar, for `--help`.
pub(crate) const HELP: &str = "\
Selectors:
  all               every node
  ctl-0             a node, or the nodes of a group; `node:x` or `group:x` if both have the name
  ctl-*             nodes by name: `*` is any text, `?` one character
  rack=a1           nodes with that label; patterns as above; quote other characters: rack=\"a, 1\"
  service:keystone  nodes that run a service
  a,b   a&b   !a    or, and, not; `&` binds tighter than `,`; (…) for grouping";

/// A selector that was parsed, with its text. Not resolved: the same selector matches other nodes in another commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Selector {
    text: String,
    expr: Expr,
}

impl Selector {
    /// The nodes that it matches: at least one.
    ///
    /// # Errors
    /// A part of it names something that the site does not have, or the whole matches no node.
    pub fn select(&self, inventory: &Inventory, catalog: &Catalog) -> Result<BTreeSet<NodeId>, SelectError> {
        let site = Names { inventory, catalog };
        let nodes = site.expr(&self.expr)?;
        if nodes.is_empty() {
            return Err(SelectError::Empty { selector: self.text.clone(), hint: site.parts(&self.expr) });
        }
        Ok(nodes)
    }

    /// The text that was parsed, without spaces around it.
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
