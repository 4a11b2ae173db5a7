//! Sites for simulated agents: as many nodes as wanted, each with the same tasks, in the shapes that cost a planner most.
//!
//! In: a shape, the nodes, how many tasks, and two texts: one that all nodes have and one that a single node has. Out: the files of a site.

use std::fmt::Write as _;

use groundplan_protocol::{envelope::SigningKey, ids::NodeId};

use super::SimulatedNode;
use crate::fleet::Fleet;

/// Nodes in each file of the inventory.
const PER_FILE: usize = 100;

/// What orders the nodes among each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Nothing.
    Plain,
    /// One service requires another one, on all nodes: half of the tasks wait for the other half everywhere.
    Barrier,
    /// A process is restarted on a tenth of the nodes at a time.
    Rolling,
}

/// A site, apart from the texts in it.
#[derive(Debug, Clone, Copy)]
pub struct Site {
    /// What orders the nodes.
    pub shape: Shape,
    /// How many nodes.
    pub nodes: usize,
    /// How many tasks each node has; at least 4.
    pub tasks: usize,
}

/// The name of a node by its number.
pub fn name(number: usize) -> NodeId {
    NodeId::new(format!("n{number:05}")).expect("a name")
}

fn key(node: &NodeId) -> SigningKey {
    Fleet::node_key(node.as_str())
}

impl Site {
    /// The agents of its nodes, with their passwords at a broker that asks for them.
    pub fn agents(&self, password: impl Fn(&NodeId) -> Option<String>) -> Vec<SimulatedNode> {
        let agent = |node: NodeId| SimulatedNode { key: key(&node), password: password(&node), node };
        (0..self.nodes).map(name).map(agent).collect()
    }

    /// Its files without a task, as a first commit: nodes, their keys and their group.
    pub fn inventory(&self) -> Vec<(String, String)> {
        let mut files = vec![self.text("start"), group(&[])];
        for first in (0..self.nodes).step_by(PER_FILE) {
            files.push((inventory_file(first), self.inventory_text(first, "start")));
        }
        files
    }

    /// Its tasks, for a later commit.
    pub fn services(&self) -> Vec<(String, String)> {
        let task = |n: usize, content: &str| {
            format!("[[task]]\nid = \"t{n}\"\nfile = {{ path = \"/etc/s/{n}\", content = \"{content}\" }}\n\n")
        };
        let content = |n: usize| match n {
            0 => "{{ text }}".to_owned(),
            1 => "{{ own }}".to_owned(),
            n => format!("the content of file {n}, which is the same everywhere"),
        };
        let tasks = |range: std::ops::Range<usize>| range.map(|n| task(n, &content(n))).collect::<String>();
        let service = |name: &str, text: String| (format!("services/{name}/service.toml"), text);
        let half = self.tasks / 2;
        match self.shape {
            Shape::Plain => vec![group(&["s"]), service("s", tasks(0..self.tasks))],
            Shape::Barrier => {
                let last = "[[task]]\nid = \"last\"\nprovides = [\"s/done\"]\nfile = { path = \"/etc/s/last\", content = \"last\" }\n";
                let second = format!("[service]\nrequires = [\"s/done\"]\n\n{}", tasks(half..self.tasks));
                vec![group(&["s", "t"]), service("s", tasks(0..half - 1) + last), service("t", second)]
            }
            Shape::Rolling => {
                let limit = (self.nodes / 10).max(1);
                let process =
                    "[[task]]\nid = \"run\"\nprocess = { run = [\"sleep\", \"100000\"] }\nrestart_on = [\"t0\"]\n";
                let head = format!("[rollout]\nmax_unavailable = {limit}\n\n");
                vec![group(&["s"]), service("s", head + &tasks(0..self.tasks - 1) + process)]
            }
        }
    }

    /// The file with the text that a task of every node has.
    pub fn text(&self, text: &str) -> (String, String) {
        (
            "site.toml".to_owned(),
            format!("name = \"{}\"\n[vars]\ntext = \"{text}\"\nown = \"own\"\n", crate::fleet::SITE),
        )
    }

    /// The file with the text that a task of the first node has.
    pub fn own(&self, text: &str) -> (String, String) {
        (inventory_file(0), self.inventory_text(0, text))
    }

    fn inventory_text(&self, first: usize, own: &str) -> String {
        let mut out = String::new();
        for node in (first..self.nodes.min(first + PER_FILE)).map(name) {
            let key = key(&node).public();
            let vars = if node == name(0) { format!("vars = {{ own = \"{own}\" }}\n") } else { String::new() };
            write!(out, "[nodes.{node}]\ngroups = [\"g\"]\nkey = \"{key}\"\n{vars}\n").expect("a string grows");
        }
        out
    }
}

fn inventory_file(first: usize) -> String {
    format!("inventory/n{first:05}.toml")
}

fn group(services: &[&str]) -> (String, String) {
    ("inventory/groups.toml".to_owned(), format!("[groups.g]\nservices = {services:?}\n"))
}
